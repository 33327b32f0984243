"""Faults of the state directory and of the machine under it: full, read-only, damaged, shared, and clocks that jump."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from benchmarks.reliability import stream
from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.reliability.stream import (
    FACTS,
    Journalled,
    Upstream,
    check_surviving,
    logged,
    reading,
    run_to_the_end,
)
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.testbed.forks import Life
from benchmarks.testbed.small import append
from streamlearn.checkpoint import Checkpoints
from streamlearn.errors import CheckpointError
from streamlearn.inspection import inspected

RECORDS = 240
WHOLE = {"checkpoint": {"every_records": 40, "keep": 100_000}}  # no segment of the journal is cut
REFUSED = {"disk.refuses": "journal", "checkpoint.failed": "checkpoint"}  # line of the log → what was not written
SAME = "the undisturbed run's bytes and answers, each record with one outcome"


class Trial:
    """Records on the embedded log, a state directory that gets into trouble, and one that does not."""

    def __init__(self, bench: Bench, records: int = RECORDS) -> None:
        self.forks, self.folder = bench.forks, bench.folder
        self.upstream = stream.in_log(bench.folder, records)
        self.state = bench.folder / "state"
        self.config, self.decided = reading(self.upstream, self.state), Journalled(self.state)

    def start(self, *arguments: str, first: tuple[str, list[int]] | None = None) -> Life:
        """The daemon."""
        return self.forks.start("run", self.config, "--set", "source.poll_records=7", *arguments, first=first)

    def refused(self, *words: str, first: tuple[str, list[int]] | None = None) -> None:
        """A start ends with 4 and one line that holds these words. Errors: AssertionError."""
        life = self.start(first=first)
        assert life.wait(60.0) == 4, f"it ended with {life.code}: {life.stderr[-300:]}"
        said = life.stderr.splitlines()[-1]
        assert all(word in said for word in words), f"it said: {said}"

    def run(self, life: Life | None = None) -> None:
        """To the end."""
        run_to_the_end(life or self.start(), self.state, self.upstream)

    def check(self, upstream: Upstream | None = None) -> None:
        """Against an undisturbed run. Errors: AssertionError."""
        upstream, straight = upstream or self.upstream, self.folder / "straight"
        run_to_the_end(self.forks.start("run", reading(upstream, straight)), straight, upstream)
        check_surviving(self.state, straight, upstream)


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of its own that is soon full. Errors: NotHereError where none can be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        raise NotHereError("no file system of its own can be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path, leave_bytes: int) -> None:
    """Take all room of a disk but so much."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(path, max(0, path.stat().st_size - leave_bytes))


@scenario(
    "state",
    "disk full while learning and saving",
    produced="a tmpfs filled to the last 0 to 16 KiB under a running daemon (real ENOSPC), then freed",
)
def disk_full(bench: Bench) -> Outcome:
    """The learner waits, the servers stay, and it goes on by itself."""
    rooms = (0,) if bench.quick else (0, 0, 4096, 8192, 16384)
    recover_s = [_filled(bench, round_, room) for round_, room in enumerate(rooms)]
    return Outcome(f"learning waited and went on without a restart; {SAME}", len(rooms), recover_s)


def _filled(bench: Bench, round_: int, room: int) -> float:
    """Seconds from the moment that there is room again to new work."""
    bench.room(f"full-{round_}")
    with tiny_disk(bench.folder / "state") as disk:
        trial = Trial(bench)
        life, decided = trial.start("--set", "telemetry.enabled=true", "--set", "telemetry.port=0"), trial.decided
        life.until(lambda: decided() >= RECORDS, "the first records")
        fill(disk / "filler", room)
        more = stream.values(2 * RECORDS, seed=0)  # none of the new ones is a dead letter: that ends the process
        append(trial.folder / "samples.sqlite", more[RECORDS:])
        life.until(lambda: _waits(life), "the disk being full", 120.0)
        life.until(lambda: _is_seen(life), "its refusal on the metrics page", 30.0)
        (disk / "filler").unlink()
        began, before = time.monotonic(), decided()
        longer = Upstream(trial.upstream.source, {"samples[0]": more})
        if before < longer.records:
            life.until(lambda: decided() > before, "new work")
        seconds = time.monotonic() - began
        run_to_the_end(life, trial.state, longer)
        trial.check(longer)
    return seconds


def _waits(life: Life) -> bool:
    return any(event["event"] in REFUSED for event in life.events)


def _is_seen(life: Life) -> bool:
    """Prometheus is told that the disk refuses, and how little room there is."""
    port = next(event["port"] for event in life.events if event["event"] == "metrics.listening")
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    refused = dict(re.findall(r'^streamlearn_disk_refusals_total\{write="(.*)"\} (.*)$', page, re.MULTILINE))
    said = {event["event"] for event in life.events}
    expected = {write for event, write in REFUSED.items() if event in said}
    (free,) = re.findall(r'^streamlearn_disk_free_bytes\{folder="state"\} (.*)$', page, re.MULTILINE)
    return all(float(refused[write]) > 0 for write in expected) and float(free) < 1 << 16


@scenario("state", "read-only state directory", produced="a tmpfs mounted read-only (real EROFS)")
def read_only(bench: Bench) -> Outcome:
    """Refused in one line; writable again, it goes on."""
    with tiny_disk(bench.folder / "state") as disk:
        trial = Trial(bench)
        run_to_the_end(trial.start(), trial.state, trial.upstream)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        trial.refused("Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        trial.run()
        trial.check()
    return Outcome(f"refused with exit code 4 and one line; once writable, {SAME}")


@scenario(
    "state",
    "the learner gets no memory",
    produced="fault injected: `learn` fails, when it has learned, for more than 20 rows at once and for each of 3 rows; two"
    " kills between",
)
def short_of_memory(bench: Bench) -> Outcome:
    """Retried in halves, then without those rows; the bytes of a run that had memory and took the same decisions."""
    trial, poison, places = Trial(bench), 77.0, (40, 41, 150)
    trial.config = reading(trial.upstream, trial.state, **WHOLE)
    (held,) = trial.upstream.held.values()
    for at in places:
        told = json.loads(held[at])
        held[at] = json.dumps({**told, "features": [poison, *told["features"][1:]]}).encode()
    (bench.folder / "samples.sqlite").unlink()
    append(bench.folder / "samples.sqlite", held)
    first = ("benchmarks.reliability.sabotage:short_of_memory", ["streamlearn.learners.chunkwise:Chunkwise.learn", 20, poison])
    many = ("--set", "source.poll_records=100")
    for until in (80, 170):
        life = trial.forks.start("run", trial.config, *many, first=first)
        life.until(lambda: trial.decided() >= until, f"record {until}")  # noqa: B023  it has come before the next round
        life.kill()
        life.wait()
    trial.run(trial.forks.start("run", trial.config, *many, first=first))
    found = inspected(trial.state)
    assert found["rejected"].get("learn") == len(places), f"set aside: {found['rejected']}"
    letters = {(record.key or b"").decode(): record.value for record in logged(trial.state / "dead_letters.sqlite")}
    aside = [f"samples[0]@{at}" for at in places]
    assert sorted(letters) == sorted({*trial.upstream.bad, *aside}), "dead letters: each bad record, and each without memory"
    assert found["counts"]["learned"] + found["pending"] == len(trial.upstream.good) - len(places), (
        "its neighbours were learned"
    )
    straight = bench.folder / "straight"
    shutil.copytree(trial.state / "journal", straight / "journal")
    run_to_the_end(trial.forks.start("run", reading(trial.upstream, straight, **WHOLE)), straight, trial.upstream)
    for fact in FACTS:
        assert found[fact] == inspected(straight)[fact], f"{fact} is not that of the run that had memory"
    return Outcome(f"retried in halves, then 3 rows in the dead letters, the others learned: {SAME}", 3)


def _kept(bench: Bench) -> Trial:
    """A state directory with three checkpoints, killed in the midst of it: one at least for each third of the stream."""
    held, third = stream.values(RECORDS, seed=0), RECORDS // 3
    trial = Trial(bench, third)
    store, life, last = Checkpoints(trial.state / "checkpoints"), trial.start(), list[str]()
    for end in (third, 2 * third, RECORDS):
        if end > third:
            append(trial.folder / "samples.sqlite", held[end - third : end])
        life.until(lambda: store.names()[-1:] > last, "another checkpoint")  # noqa: B023  it has come before the next round
        last = store.names()[-1:]
    life.kill()
    life.wait()
    trial.upstream = Upstream(trial.upstream.source, {"samples[0]": held})
    return trial


@scenario(
    "state",
    "newest checkpoint damaged",
    produced="each of its two files cut in half, emptied, gone, a bit flipped in its head and in its middle",
)
def damaged(bench: Bench) -> Outcome:
    """Set aside, and the one before it used."""
    trial, recover_s = _kept(bench), list[float]()
    clean = bench.folder / "clean"
    shutil.copytree(trial.state, clean)
    kinds = [
        (file, part) for file in ("arrays.safetensors", "manifest.json") for part in ("half", "empty", "gone", "flip", "head")
    ]
    for file, part in kinds[:3] if bench.quick else kinds:
        shutil.rmtree(trial.state)
        shutil.copytree(clean, trial.state)
        for left in bench.folder.glob("*.answers*"):
            left.unlink()
        name = Checkpoints(trial.state / "checkpoints").names()[-1]
        _damage(trial.state / "checkpoints" / name / file, part)
        began, before = time.monotonic(), trial.decided()
        life = trial.start()
        life.event("daemon.restored")
        recover_s.append(time.monotonic() - began)
        assert any(event["event"] == "checkpoint.damaged" for event in life.events), "nobody was told"
        trial.run(life)
        assert inspected(trial.state)["positions"] == trial.upstream.positions, before
        straight = bench.folder / "straight"
        if not straight.exists():
            run_to_the_end(trial.forks.start("run", reading(trial.upstream, straight)), straight, trial.upstream)
        one, other = inspected(trial.state), inspected(straight)
        assert one["state_digest"] == other["state_digest"], f"other bytes after {file} was {part}"
    return Outcome("set aside with a log line, the one before it used: the undisturbed run's bytes", len(recover_s), recover_s)


def _damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "gone":
        path.unlink()
        return
    content[3 if kind == "head" else len(content) // 2] ^= 16
    path.write_bytes(bytes({"half": content[: len(content) // 2], "empty": bytearray()}.get(kind, content)))


@scenario(
    "state", "any bit of a checkpoint flipped", produced="bits of manifest, tensor header and tensor data, one after the other"
)
def flipped(bench: Bench) -> Outcome:
    """None is believed; one that spells the same number otherwise changes nothing."""
    trial, draw = _kept(bench), random.Random(2)
    store = Checkpoints(trial.state / "checkpoints")
    name, flips = store.names()[-1], 100 if bench.quick else 3000
    tried = same = 0
    whole, _ = store.read(name)
    for file in ("arrays.safetensors", "manifest.json"):
        path = store.folder / name / file
        content = path.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little") if file.startswith("arrays") else len(content)
        for at in (
            *range(8),
            *(draw.randrange(header) for _ in range(flips // 4)),
            *draw.choices(range(len(content)), k=flips // 4),
        ):
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :])
            tried += 1
            try:
                found, _ = store.read(name)
            except CheckpointError:
                continue
            assert found.state_digest == whole.state_digest, f"bit flip at byte {at} of {file} was not noticed"
            assert found.journal == whole.journal, f"bit flip at byte {at} of {file} was not noticed"
            same += 1
        path.write_bytes(content)
    return Outcome(f"{tried - same} were noticed and not read; {same} spell the same number otherwise: the same state", tried)


@scenario("state", "checkpoint of an older or a newer schema", produced="the schema number changed, the manifest sealed again")
def other_schema(bench: Bench) -> Outcome:
    """Refused by name, and nothing is touched."""
    trial = _kept(bench)
    store = Checkpoints(trial.state / "checkpoints")
    path = store.folder / store.names()[-1] / "manifest.json"
    kept = path.read_bytes()
    for step, word in ((1, "upgrade"), (-1, "the version that wrote it")):
        body = json.loads(kept)["body"]
        body["schema"] += step
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        path.write_text(json.dumps({"body": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
        trial.refused(f"was written by schema {body['schema']}", word)
    path.write_bytes(kept)
    trial.run()
    trial.check()
    return Outcome(f"refused with exit code 4, what was found and what to do; put right, {SAME}", 2)


@scenario("state", "clock jumps", produced="the wall clock jumps by up to a day, forth and back, at every look at it")
def clock_jumps(bench: Bench) -> Outcome:
    """No clock is in the state."""
    runs = 1 if bench.quick else 5
    for seed in range(runs):
        bench.room(f"clock-{seed}")
        trial = Trial(bench)
        trial.run(trial.start(first=("benchmarks.reliability.sabotage:jump_clocks", [seed])))
        trial.check()
    return Outcome(SAME, runs)


@scenario("state", "two daemons on one state directory", produced="a second `run` while the first one learns")
def two_daemons(bench: Bench) -> Outcome:
    """The second is refused."""
    trial = Trial(bench)
    life = trial.start()
    life.event("daemon.started")
    for _ in range(3):
        trial.refused("is locked by process", "--take-over")
    trial.run(life)
    trial.check()
    return Outcome(f"the second ends with 4 and names the first, which ends in {SAME}", 3)


@scenario(
    "state",
    "zombie: stopped, taken over, continued",
    produced="SIGSTOP in the midst of work, `run --take-over` for a moment or through all records, SIGCONT",
)
def zombie(bench: Bench) -> Outcome:
    """It writes nothing that counts, and ends."""
    runs = 2 if bench.quick else 12
    recover_s = [_taken_over(bench, round_) for round_ in range(runs)]
    return Outcome(f"the zombie ends with 4, and adds nothing; the successor ends in {SAME}", runs, recover_s)


def _taken_over(bench: Bench, round_: int) -> float:
    """Seconds until the successor had started."""
    bench.room(f"zombie-{round_}")
    trial = Trial(bench)
    old, decided, goal = trial.start(), trial.decided, random.Random(round_).randint(1, RECORDS - 20)
    old.until(lambda: decided() >= goal, "some work")
    old.kill(signal.SIGSTOP)
    began = time.monotonic()
    new = trial.start("--take-over")
    new.event("daemon.started")
    seconds = time.monotonic() - began
    if round_ % 2:
        new.until(lambda: decided() >= RECORDS, "the successor's work")
    store = Checkpoints(trial.state / "checkpoints")
    assert store.names()[-1].startswith("0002-"), "the successor has a checkpoint of its own"
    old.kill(signal.SIGCONT)
    code = old.wait(60.0)
    assert code == 4, f"the zombie ended with {code}: {old.stderr[-300:]}"
    assert "taken over" in old.stderr, "it said why"
    trial.run(new)
    assert store.names()[-1].startswith("0002-"), "the successor's is the newest"
    trial.check()
    return seconds
