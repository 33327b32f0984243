"""Avro with a schema registry: schemas evolve, are asked for once, and an outage makes records wait and refuses none."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import connectors
from benchmarks.reliability.stream import logged
from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.forks import Forks
from benchmarks.testbed.small import configured, samples, settled
from streamlearn.decode import avro
from streamlearn.decode.avro import MISSING_S, AvroDecoder
from streamlearn.decode.fields import Rules
from streamlearn.decode.keys import AvroKeys
from streamlearn.errors import DecodeError, SourceError
from streamlearn.journal import Journal
from streamlearn.prefetch import Intake, Prefetch
from streamlearn.records import Message, Record, Sample
from streamlearn.schema import Column, Schema
from streamlearn.settings import read
from tests.registry import FakeRegistry, basic, endless, registry, silent
from tests.test_avro import record_of, written

COLUMNS = Schema((Column("amount"), Column("weight")))
V1 = record_of(("amount", "int"), ("label", "string"))
V2 = {**V1, "fields": [*V1["fields"], {"name": "weight", "type": "float"}]}
READER = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "amount", "type": "double"},
        {"name": "weight", "type": "double", "aliases": ["mass"], "default": 1.5},
        {"name": "label", "type": "string"},
    ],
}


@pytest.fixture
def fake() -> Any:
    with registry() as made:
        yield made


def framed(number: int, schema: Any, value: Any) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + written(schema, value)


def decoder(fake: FakeRegistry, reader: Any = None, clock: Any = None, **keys: Any) -> Any:
    told = read(AvroKeys, {"definition": reader, "registry": {"url": fake.url, **keys}}, path="decode.avro")
    return AvroDecoder(Rules((2,), 1 << 20, "any", COLUMNS), told, **({"clock": clock} if clock else {}))


def decoded(how: Any, value: bytes) -> tuple[Sample, list[float]]:
    out = np.zeros(2, np.float32)
    return how.decode(Record("orders[3]", 88112, value), out), out.tolist()


def refusal(how: Any, value: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(how, value)
    assert str(caught.value).startswith("orders[3]@88112: ")
    return str(caught.value)


ONE = framed(1, V1, {"amount": 3, "label": "late"})


def test_records_of_several_writers_become_those_of_the_reader(fake: FakeRegistry) -> None:
    renamed = record_of(("label", "string"), ("mass", "int"), ("amount", "float"), ("colour", "string"))
    fake.add(1, V1)
    fake.add(2, V2)
    fake.add(70_000, renamed)
    how = decoder(fake, READER)
    assert decoded(how, ONE) == (Sample("late"), [3.0, 1.5]), "the default of a field that was not there yet"
    assert decoded(how, framed(2, V2, {"amount": 4, "label": "late", "weight": 2.5})) == (Sample("late"), [4.0, 2.5])
    newest = framed(70_000, renamed, {"label": "x", "mass": 7, "amount": 0.5, "colour": "red"})
    assert decoded(how, newest) == (Sample("x"), [0.5, 7.0]), "by its alias, wider, without what the reader does not know"


def test_without_a_reader_the_writers_schema_is_taken(fake: FakeRegistry) -> None:
    fake.add(2, V2)
    assert decoded(decoder(fake), framed(2, V2, {"amount": 4, "label": "late", "weight": 2.5}))[1] == [4.0, 2.5]


def test_a_writer_that_cannot_be_brought_to_the_reader_is_a_dead_letter(fake: FakeRegistry) -> None:
    fake.add(1, other := record_of(("amount", "string"), ("label", "string")))
    assert "is no Avro of schema 1" in refusal(decoder(fake, READER), framed(1, other, {"amount": "3", "label": "late"}))
    fake.add(2, none := record_of(("amount", "int")))
    assert "No default value for field label" in refusal(decoder(fake, READER), framed(2, none, {"amount": 3}))


def test_an_id_is_asked_for_once(fake: FakeRegistry) -> None:
    fake.add(1, V1)
    how = decoder(fake, READER)
    for _ in range(50):
        decoded(how, ONE)
    assert fake.asked == ["/schemas/ids/1"]


def test_what_is_remembered_is_bounded(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "MOST_SCHEMAS", 3)
    how = decoder(fake, READER)
    for number in (1, 2, 3, 1, 4, 1, 2):
        fake.add(number, V1)
        decoded(how, framed(number, V1, {"amount": 3, "label": "late"}))
    assert [path[-1] for path in fake.asked] == list("12342"), "the one that was not used for longest went first"


def test_an_id_that_does_not_exist_is_a_dead_letter_and_asked_for_again_later(fake: FakeRegistry) -> None:
    now = [100.0]
    how = decoder(fake, READER, clock=lambda: now[0])
    for _ in range(3):
        assert "its schema has the id 1: the registry has no schema 1" in refusal(how, ONE)
    assert len(fake.asked) == 1, "bad records do not become a flood of questions"
    fake.add(1, V1)
    now[0] += MISSING_S
    assert decoded(how, ONE)[0] == Sample("late"), "so that a letter that is sent again can be learned"


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ((500, b'{"error_code": 50001}'), "answered 500 for schema 2"),
        ((429, b""), "answered 429"),
        ((404, b"<html>no such page</html>"), "answered 404"),
        ((200, b"<html>sign in</html>"), "answered 200"),
        ((200, b"[" * 100_000), "answered 200"),
        ((302, b""), "answered 302"),
        ((403, b""), "answered 403 for schema 2: these credentials may not read it"),
        (silent, "cannot be asked: timed out"),
        (endless, "cannot be asked: no whole answer within 0.2 s"),
    ],
)
def test_a_registry_that_does_not_answer_refuses_no_record(fake: FakeRegistry, fault: Any, part: str) -> None:
    """It is a SourceError, whatever went wrong: known ids go on, and the record is read once the registry is back."""
    fake.add(1, V1)
    fake.add(2, V2)
    how = decoder(fake, READER, timeout_s=0.2)
    two = framed(2, V2, {"amount": 4, "label": "late", "weight": 2.5})
    decoded(how, ONE)
    fake.fault = fault
    with pytest.raises(SourceError, match="schema registry http://127") as caught:
        decoded(how, two)
    assert part in str(caught.value)
    assert decoded(how, ONE)[0] == Sample("late")
    fake.fault = None
    assert decoded(how, two)[1] == [4.0, 2.5]


def test_a_registry_that_is_not_there_refuses_no_record() -> None:
    with registry() as gone:
        how = decoder(gone, READER)
    with pytest.raises(SourceError, match="cannot be asked"):
        decoded(how, ONE)


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ({"schema": "message M {}", "schemaType": "PROTOBUF"}, "is of the type PROTOBUF, expected AVRO"),
        ({"schema": "{"}, "is no JSON"),
        ({"schema": '{"type": "record"}'}, "it is no Avro schema"),
        ({"schema": '"nothing"'}, "it is no Avro schema"),
        ({"schema": '"int"', "references": [{"name": "a"}]}, "refers to others in a way that is not understood"),
        ({"schema": '"int"', "references": 7}, "refers to others in a way that is not understood"),
        ({"schema": '"int"', "references": [{"subject": "gone", "version": 1}]}, "the registry has no version 1 of 'gone'"),
        ({"schema": json.dumps("x" * 5000)}, "longer than decode.avro.registry.max_bytes, 2048"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_dead_letter(fake: FakeRegistry, answer: dict[str, Any], part: str) -> None:
    fake.by_id[1] = answer
    assert part in refusal(decoder(fake, READER, max_bytes=2048), ONE)


def test_schemas_that_refer_to_others_are_put_together(fake: FakeRegistry) -> None:
    money = {
        "type": "record",
        "name": "shop.Money",
        "fields": [{"name": "amount", "type": "double"}, {"name": "weight", "type": "int"}],
    }
    features = {"type": "record", "name": "shop.Features", "fields": [{"name": "money", "type": "shop.Money"}]}
    whole = record_of(("features", "shop.Money"), ("others", {"type": "array", "items": "shop.Features"}))
    fake.by_subject["money", 3] = {"schema": json.dumps(money)}
    reference = {"name": "shop.Money", "subject": "money", "version": 3}
    fake.by_subject["features", 1] = {"schema": json.dumps(features), "references": [reference]}
    fake.add(5, whole, references=[{"name": "shop.Features", "subject": "features", "version": 1}, reference])
    complete = record_of(("features", money), ("others", {"type": "array", "items": features}))
    value = {"features": {"amount": 2.5, "weight": 3}, "others": [{"money": {"amount": 1.0, "weight": 1}}]}
    assert decoded(decoder(fake), framed(5, complete, value))[1] == [2.5, 3.0]
    assert fake.asked == ["/schemas/ids/5", "/subjects/features/versions/1", "/subjects/money/versions/3"]


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\1\0\0\0\1", written(V1, {"amount": 3, "label": "late"}), b"{}"])
def test_a_value_without_a_schemas_id_is_a_dead_letter_without_a_question(fake: FakeRegistry, value: bytes) -> None:
    assert "expected a zero byte and the id of a schema in four" in refusal(decoder(fake, READER), value)
    assert fake.asked == []


def test_it_signs_in_by_name_or_token_from_files_that_may_be_rotated(fake: FakeRegistry, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    fake.add(1, V1)
    fake.wanted = basic("reader", "first")
    assert decoded(decoder(fake, READER, user="reader", password_file=str(secret)), ONE)[0] == Sample("late")
    fake.wanted = "Bearer second"
    how = decoder(fake, READER, token_file=str(secret))
    with pytest.raises(SourceError, match="answered 401 for schema 1: credentials are missing or wrong") as caught:
        decoded(how, ONE)
    assert "first" not in str(caught.value)
    secret.write_text("second")
    assert decoded(how, ONE)[0] == Sample("late")
    secret.unlink()
    fake.add(2, V2)
    with pytest.raises(SourceError, match="token_file names a file that cannot be read"):
        decoded(how, framed(2, V2, {"amount": 4, "label": "late", "weight": 2.5}))


def test_credentials_go_nowhere_else(fake: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 20)
    with registry() as elsewhere:

        def away(handler: Any) -> None:
            handler.send_response(302)
            handler.send_header("Location", elsewhere.url + "/schemas/ids/1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        fake.fault = away
        with pytest.raises(SourceError, match="answered 302"):
            decoded(decoder(fake, READER, token_file=str(tmp_path / "token")), ONE)
        assert elsewhere.asked == []


def test_the_source_waits_for_a_registry_and_hands_over_what_is_known(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.add(1, V1)
    two = framed(2, V2, {"amount": 4, "label": "late", "weight": 2.5})
    source = MemorySource({"a[0]": [ONE, ONE, two, ONE, b"bad", two]})
    intake, journal = Intake(max_records=100, max_bytes=1 << 20), Journal(tmp_path / "journal")
    journal.resume("0001-00000000")
    down = threading.Event()

    def fault(handler: Any) -> None:
        down.set()
        handler.send_error(503)

    how = decoder(fake, READER)
    decoded(how, ONE)
    fake.fault = fault
    prefetch = Prefetch(lambda: source, how, intake, shape=(2,), positions={})
    prefetch.start()
    try:
        assert down.wait(10.0)
        taken: list[Any] = []
        while len(taken) < 2:
            run = intake.take(journal, 10, 1.0)
            taken += [] if run is None else [*zip(run.records, run.samples, strict=True)]
        assert [record.place for record, _ in taken] == ["a[0]@0", "a[0]@1"], "nothing passes the record that waits"
        assert intake.take(journal, 10, 0.2) is None
        assert not prefetch.upstream.ok
        assert "schema registry" in prefetch.upstream.message
        fake.add(2, V2)
        fake.fault = None
        while not intake.drained:
            run = intake.take(journal, 10, 1.0)
            taken += [] if run is None else [*zip(run.records, run.samples, strict=True)]
    finally:
        prefetch.stop(5.0)
        journal.close()
    assert [record.position for record, _ in taken] == list(range(6)), "each once"
    assert [isinstance(sample, DecodeError) for _, sample in taken] == [False, False, False, False, True, False]


def test_the_daemon_learns_through_an_outage_and_what_does_not_exist_is_a_dead_letter(
    fake: FakeRegistry, tmp_path: Path, forks: Forks
) -> None:
    """The real program on the embedded log, from one schema to the next, with a registry that is away in between."""
    older = record_of(("features", {"type": "array", "items": "float"}), ("label", "string"))
    newer = {**older, "fields": [*older["fields"], {"name": "shop", "type": "int"}]}
    fake.add(1, older)
    told = [json.loads(each) for each in samples(120)]
    values = [framed(1, older, each) for each in told[:60]]
    values += [b"\0\0\0\0\x09" + b"nothing"]
    values += [framed(2, newer, each | {"shop": 3}) for each in told[60:]]

    def append(some: list[bytes]) -> None:
        sink = connectors.open_sink("log", {"path": str(tmp_path / "samples.sqlite")})
        sink.write([Message(each) for each in some])
        sink.close()

    state = tmp_path / "state"
    avro = {"definition": older, "registry": {"url": fake.url, "timeout_s": 0.5}}
    config = configured(
        state, {"type": "log", "path": str(tmp_path / "samples.sqlite")}, decode={"format": "avro", "avro": avro}
    )
    append(values[:61])
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 61, "the first schema", 240.0)
    fake.fault = (503, b"")
    append(values[61:])
    life.event("source.lost")
    status = json.loads((state / "status.json").read_bytes())
    assert status["outcomes"]["rejected"] == 1, "the id that does not exist, and none that could not be asked for"
    life.kill(9)
    life.wait()
    life = forks.start("run", config)
    assert "schema registry" in life.event("source.lost")["error"], "it begins anew without a schema, and waits"
    fake.add(2, newer)
    fake.fault = None
    life.until(lambda: settled(state) == 121, "the second schema", 240.0)
    life.stop()
    status = json.loads((state / "status.json").read_bytes())
    assert (status["outcomes"]["learned"], status["outcomes"]["rejected"]) == (120, 1)
    places = {(record.key or b"").decode() for record in logged(state / "dead_letters.sqlite")}
    assert places == {"samples[0]@60"}
