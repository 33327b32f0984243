"""Each fuzzed record through the program's decoder and the independent parser, and what may not be different."""

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks.fuzz import schemas
from benchmarks.fuzz.independent import COLUMNS, MAX_BYTES, PARSERS, SHAPE, Found, Refused
from benchmarks.fuzz.records import fuzzed
from streamlearn import decode
from streamlearn.errors import DecodeError
from streamlearn.protocols import Decoder
from streamlearn.records import Headers, Record
from streamlearn.settings import read

MEASURED_EVERY = 10  # records of which the memory is measured, which is slow
ROOM_BYTES = 64 << 10
PER_BYTE = 64  # of memory for a byte of a value: a list of small floats takes some 33


@dataclass
class Verdicts:
    """Counts of one format, and the records that should not be there."""

    accepted: int = 0  # by both, with the same values
    refused: int = 0  # by both
    stricter: Counter[str] = field(default_factory=Counter)  # refused by the program alone, by reason
    wrong: list[str] = field(default_factory=list)
    peak_bytes: int = 0  # most memory that one record took


def run(format_: str, records: int, seed: int) -> Verdicts:
    """Fuzz one format."""
    draw, verdicts, decoder = random.Random(f"{format_} {seed}"), Verdicts(), decoder_of(format_)
    for i in range(records):
        value, headers = fuzzed(format_, draw)
        if i % MEASURED_EVERY == 0:
            _measure(decoder, value, headers, verdicts)
        _compare(format_, decoder, (value, headers), verdicts)
    return verdicts


def decoder_of(format_: str) -> Decoder:
    """As a configuration would make it."""
    values: dict[str, object] = {"format": format_, "max_bytes": MAX_BYTES, "csv": {"columns": list(COLUMNS)}}
    values |= {"avro": {"definition": schemas.AVRO}}
    values |= {"protobuf": {"descriptors": str(schemas.descriptors()), "message": schemas.MESSAGE}}
    if format_ == "cloudevents":
        values |= {"format": "json", "envelope": "cloudevents"}
    return decode.decoder_for(read(decode.Settings, values, path="decode"), SHAPE)


def by_program(decoder: Decoder, value: bytes, headers: Headers) -> Found:
    """Errors: Refused for a DecodeError; whatever else it raises is a crash."""
    out = np.full(SHAPE, np.nan, np.float32)
    try:
        sample = decoder.decode(Record("fuzz[0]", 7, value, None, headers), out)
    except DecodeError as error:
        raise Refused(str(error)) from error
    return Found(out.astype("<f4").tobytes(), sample.label, sample.id, sample.time_ms, sample.context)


def _compare(format_: str, decoder: Decoder, record: tuple[bytes, Headers], verdicts: Verdicts) -> None:
    try:
        ours: Found | Refused = by_program(decoder, *record)
    except Refused as refusal:
        ours = refusal
    except BaseException as error:  # noqa: BLE001  a crash is what is looked for
        verdicts.wrong.append(f"it raised {error!r}: {record!r:.300}")
        return
    theirs = independent(format_, *record)
    if isinstance(ours, Refused):
        if isinstance(theirs, Refused):
            verdicts.refused += 1
        else:
            verdicts.stricter[str(ours).removeprefix("fuzz[0]@7: ")[:60]] += 1
    elif isinstance(theirs, Refused):
        verdicts.wrong.append(f"accepted, though {theirs}: {record!r:.300} as {ours}")
    elif ours != theirs or [type(each) for each in ours] != [type(each) for each in theirs]:
        verdicts.wrong.append(f"read as {ours}, not {theirs}: {record!r:.300}")
    else:
        verdicts.accepted += 1


def independent(format_: str, value: bytes, headers: Headers) -> Found | Refused:
    """The other verdict."""
    if len(value) > MAX_BYTES:
        return Refused("too long")
    try:
        return PARSERS[format_](value, headers)
    except Refused as refusal:
        return refusal


def _measure(decoder: Decoder, value: bytes, headers: Headers, verdicts: Verdicts) -> None:
    """What a length field says must cost nothing."""
    length = min(len(value), MAX_BYTES) + sum(len(each) for _, each in headers)
    tracemalloc.start()
    try:
        by_program(decoder, value, headers)
    except Refused:
        pass
    except BaseException as error:  # noqa: BLE001  told by `_compare`
        verdicts.wrong.append(f"it raised {error!r} while measured")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    verdicts.peak_bytes = max(verdicts.peak_bytes, peak)
    if peak > ROOM_BYTES + PER_BYTE * length:
        verdicts.wrong.append(f"{peak} bytes of memory for a record of {length}: {value!r:.200}")
