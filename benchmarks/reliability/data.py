"""Data faults, through the daemon's own loop, with the default learner and with the pool of experts."""

import json
import math
import os
import random
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from kafka import KafkaProducer

from benchmarks.reliability.bench import Bench
from benchmarks.reliability.stream import in_kafka, in_log, values, with_group
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.testbed.forks import Life
from benchmarks.testbed.small import SHAPE, append, configured, keys, sample, settled
from streamlearn import assemble
from streamlearn.checkpoint import Checkpoints
from streamlearn.config import configure
from streamlearn.prequential import Prequential
from streamlearn.snapshot import Reference

LEARNERS = ("la-maml", "pool")
SIZE = SHAPE[0]


class Stream(NamedTuple):
    """Records, and how many of them have to become dead letters (None: as many as updates are undone)."""

    values: list[bytes]
    letters: int | None = 0
    settings: dict[str, dict[str, object]] = {}  # noqa: RUF012  never changed


def records(bench: Bench) -> int:
    """How many a stream has."""
    return 120 if bench.quick else 1000


def labelled(x: Sequence[float], label: object) -> bytes:
    """A record whose numbers may be any that 32 bits can hold."""
    return msgspec.msgpack.encode({"features": struct.pack(f"<{SIZE}f", *x), "label": label})


def normal(draw: random.Random) -> list[float]:
    return [draw.gauss(0, 1) for _ in range(SIZE)]


def not_finite(n: int, draw: random.Random) -> Stream:
    """One of three has a NaN or an infinity in it."""
    values = []
    for i in range(n):
        x = normal(draw)
        if i % 3 == 1:
            x[draw.randrange(SIZE)] = draw.choice((math.nan, math.inf, -math.inf))
        values.append(labelled(x, i % 2))
    return Stream(values, letters=len(range(1, n, 3)))


def enormous(n: int, draw: random.Random) -> Stream:
    """One of ten is near the largest number there is."""
    return Stream(
        [labelled([v * (3e38 / 6 if i % 10 == 4 else 1) for v in _short(draw)], i % 3) for i in range(n)], letters=None
    )


def _short(draw: random.Random) -> list[float]:
    return [max(-5.0, min(5.0, v)) for v in normal(draw)]


def constant(n: int, draw: random.Random) -> Stream:
    """All records are the same but for their label; half of the columns are zero."""
    return Stream([labelled([1.0] * 3 + [0.0] * (SIZE - 3), draw.randrange(3)) for _ in range(n)])


def explosion(n: int, draw: random.Random) -> Stream:
    """Every record has a label of its own, and the map holds ten."""
    return Stream(
        [labelled(normal(draw), f"label {i}") for i in range(n)], letters=n - 10, settings={"label": {"max_labels": 10}}
    )


def shared(n: int, draw: random.Random) -> Stream:
    """The same, and those beyond the ninth share a label."""
    return explosion(n, draw)._replace(letters=0, settings={"label": {"max_labels": 10, "other": "other"}})


def one_label(n: int, draw: random.Random) -> Stream:
    """There is one label only."""
    return Stream([labelled(normal(draw), "only") for _ in range(n)])


def sorted_by_label(n: int, draw: random.Random) -> Stream:
    """All of one label, then all of the next, then the worst: they change places at every record, with the same inputs."""
    half, x = n // 2, normal(draw)
    return Stream([labelled(normal(draw), i * 5 // half) for i in range(half)] + [labelled(x, i % 2) for i in range(n - half)])


def out_of_range(n: int, draw: random.Random) -> Stream:
    """Labels beyond 64 bits, empty, fractions, lists: half of the records."""
    bad = (2**63, -1.5, "", "x" * 1025, True)
    values = [msgspec.msgpack.encode({"features": normal(draw), "label": bad[i % 5] if i % 2 else i % 4}) for i in range(n)]
    return Stream(values, letters=n // 2)


STREAMS: dict[str, Callable[[int, random.Random], Stream]] = {
    "NaN and infinities": not_finite,
    "numbers near the largest": enormous,
    "constant features": constant,
    "labels without end": explosion,
    "labels without end, of which further ones are one": shared,
    "labels that are none": out_of_range,
    "one label": one_label,
    "labels in the worst order": sorted_by_label,
}


def played(bench: Bench, name: str) -> Outcome:
    """One stream through the loop, with both learners."""
    told = []
    for learner in LEARNERS:
        stream = STREAMS[name](records(bench), random.Random(name))
        loop = _looped(bench.folder / learner, stream, learner)
        rejected = sum(loop.admission.rejected.values())
        assert sum(loop.outcomes().values()) + len(loop.chunks) == len(stream.values), "each record has one outcome"
        assert stream.letters in (None, rejected), f"{rejected} dead letters, expected {stream.letters}"
        _check_answers(loop, learner)
        told.append(f"{learner}: {loop.tally.learned:,} learned, {rejected:,} dead letters, {loop.tally.undone:,} undone")
    return Outcome("; ".join(told), len(LEARNERS))


def _looped(folder: Path, stream: Stream, learner: str) -> Prequential:
    """What `streamlearn run` would be after the last record, without its servers."""
    folder.mkdir()
    append(folder / "samples.sqlite", stream.values)
    source = {"type": "log", "path": str(folder / "samples.sqlite")}
    told = keys(folder / "state", source, decode={"format": "msgpack"}, **stream.settings)
    if learner == "pool":
        told["learner"] = {"name": "pool"}
    config = configure(told)
    (folder / "state").mkdir()
    loop = assemble.prequential(config, state_dir=folder / "state", publisher=Reference())
    reading = assemble.prefetch(config, loop.intake, {})
    loop.journal.resume("0000-00000000")
    reading.start()
    try:
        while loop.read < len(stream.values):
            loop.turn(5.0)
        loop.publish()
    finally:
        reading.stop(5.0)
        loop.writer.close()
        loop.journal.close()
        loop.close()
    return loop


def _check_answers(loop: Prequential, learner: str) -> None:
    """What is served are probabilities, whatever was learned; and what is saved are numbers."""
    for name, array in loop.learner.state().arrays.items():
        if array.dtype.kind == "f" and "head" not in name:
            assert not np.isnan(array).any(), f"{learner}: {name} has a NaN"
    draw = np.random.default_rng(0)
    for x in (draw.normal(size=(5, SIZE)), np.zeros((1, SIZE)), np.full((1, SIZE), 1e6)):
        logits = loop.learner.predict(x.astype(np.float32)).astype(np.float64)
        if logits.shape[1]:
            shifted = np.exp(logits - logits.max(1, keepdims=True))
            assert np.allclose((shifted / shifted.sum(1, keepdims=True)).sum(1), 1.0), f"{learner}: {logits}"
    recall = [name for name in loop.metrics.values() if name.startswith("recall/")]
    assert len(recall) <= 21, "twenty labels and `other`"


def _register() -> None:
    for name, made in STREAMS.items():
        doc = (made.__doc__ or "").strip().rstrip(".")
        scenario("data", name, produced=f"{doc[:1].lower()}{doc[1:]}; la-maml and pool")(_playing(name))


def _playing(name: str) -> Callable[[Bench], Outcome]:
    return lambda bench: played(bench, name)


_register()


class Usage(NamedTuple):
    """Of a process and its threads."""

    cpu_s: float
    rss_bytes: int
    threads: int
    files: int


def usage(pid: int) -> Usage:
    """Now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage((int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * page, int(fields[17]), files)


@scenario(
    "data",
    "a burst far beyond what can be learned",
    produced="records of 2 KB, all at once; 200 records or 1 MB are read ahead; resident memory sampled until all are learned",
)
def burst(bench: Bench) -> Outcome:
    n = 2000 if bench.quick else 20_000
    draw, folder = random.Random(0), bench.folder
    fat = [json.dumps({**json.loads(sample(draw)), "more": "x" * 2000}).encode() for _ in range(500)]
    append(folder / "samples.sqlite", fat[:100])
    source = {"type": "log", "path": str(folder / "samples.sqlite"), "ahead_records": 200, "ahead_bytes": 1 << 20}
    config = configured(folder / "state", source)
    life = bench.forks.start("run", config)
    life.until(lambda: settled(folder / "state") >= 100, "the first records", 120.0)
    before = usage(life.pid)
    for first in range(0, n, 500):
        append(folder / "samples.sqlite", fat[: min(500, n - first)])
    peak = _watched(life, folder / "state", n + 100)
    life.stop(60.0)
    grown = (peak - before.rss_bytes) / 1e6
    assert grown < 60, f"resident memory grew by {grown:.0f} MB"
    return Outcome(
        f"{n:,} records, all learned; resident memory grew by at most {grown:.0f} MB, the burst held {n * 2.1 / 1000:.0f} MB"
    )


def _is_saved(life: Life, state: Path, n: int) -> None:
    """Once a checkpoint holds n records there is nothing left to do."""

    def saved() -> bool:
        store = Checkpoints(state / "checkpoints")
        return bool(names := store.names()) and sum(store.read(names[-1])[1].positions.values()) >= n

    life.until(saved, f"a checkpoint of {n} records", 120.0)


def _watched(life: Life, state: Path, n: int) -> int:
    """Most resident memory until n records have an outcome."""
    peak = 0

    def done() -> bool:
        nonlocal peak
        peak = max(peak, usage(life.pid).rss_bytes)
        return settled(state) >= n

    life.until(done, f"record {n}", 900.0)
    return peak


@scenario(
    "data",
    "idle",
    produced="nothing comes after 360 records, for two hours or what the row says, then 40 more; processor time, memory,"
    " threads and open files compared",
)
def idle(bench: Bench) -> Outcome:
    """A daemon on the log and one on Kafka, side by side. IDLE_MINUTES shortens it."""
    seconds = 5.0 if bench.quick else 60 * float(os.environ.get("IDLE_MINUTES", "120"))
    quiet = [Quiet(bench, name) for name in (("log",) if bench.quick else ("log", "kafka"))]
    time.sleep(1)  # the thread that wrote the checkpoint ends
    before = [usage(each.life.pid) for each in quiet]
    time.sleep(seconds)
    after = [usage(each.life.pid) for each in quiet]
    told = [each.judged(one, other, seconds) for each, one, other in zip(quiet, before, after, strict=True)]
    return Outcome("; ".join(told), len(told))


class Quiet:
    """A daemon that has learned all there is."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.name, folder = name, bench.room(f"idle-{name}")
        self._upstream = in_log(folder, 360) if name == "log" else with_group(bench, in_kafka(bench, 360), "idle")
        self._kafka = bench.kafka if name == "kafka" else ""
        self._state = folder / "state"
        self.life = bench.forks.start("run", configured(self._state, self._upstream.source, checkpoint={"every_s": 0.5}))
        _is_saved(self.life, self._state, 360)

    def judged(self, before: Usage, after: Usage, seconds: float) -> str:
        """The row's words, after more was read and learned. Errors: AssertionError."""
        busy = (after.cpu_s - before.cpu_s) / seconds
        grown = (after.rss_bytes - before.rss_bytes) / 1e6
        assert busy < 0.1, f"{busy:.1%} of a core"
        assert grown < 5, f"memory grew by {grown:.1f} MB"
        assert after.threads <= before.threads and after.files <= before.files, f"{before} became {after}"
        began = time.monotonic()
        self._send(values(40, seed=9))
        _is_saved(self.life, self._state, 400)
        took = time.monotonic() - began
        self.life.stop(60.0)
        return (
            f"{self.name}, {seconds / 60:.3g} min: {busy:.1%} of a core, memory {grown:+.1f} MB, no more threads or files;"
            f" what came then was learned and saved within {took:.1f} s"
        )

    def _send(self, more: list[bytes]) -> None:
        (partition,) = self._upstream.held
        if not self._kafka:
            append(Path(self._upstream.source["path"]), more)
            return
        with closing(KafkaProducer(bootstrap_servers=self._kafka)) as producer:
            for value in more:
                producer.send(partition.partition("[")[0], value, partition=0)
