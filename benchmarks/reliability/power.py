"""The power fails: SIGKILL keeps the page cache, so what `fsync` promises is tested apart.

A process that learns, saves and serves is traced (`strace`); from its system calls every state is rebuilt that a power cut
could leave, and a new process starts from each. Run as a program, this file is the traced process.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import connectors
from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.reliability.disk import STRACE, Disk, Op, operations, put
from benchmarks.reliability.stream import logged
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import started
from streamlearn.checkpoint import Checkpoints
from streamlearn.ownership import Ownership
from streamlearn.protocols import Sink
from streamlearn.records import Snapshot

RECORDS, BAD, EVERY = 60, 7, 8
PUBLISHED, DURABLE = "published", "durable"


def values(seed: int) -> list[bytes]:
    """Records of one partition, one of them bad."""
    draw = random.Random(seed)
    pairs = [f"[{draw.gauss(0, 1):.4f}, {draw.randint(0, 1)}]".encode() for _ in range(RECORDS)]
    return [b"bad" if i == BAD else pair for i, pair in enumerate(pairs)]


def source(partitions: int, draw: random.Random) -> MemorySource:
    """Partitions whose order is a matter of luck."""
    held = {f"a[{p}]": values(p) for p in range(partitions)}
    return MemorySource(held, poll_size=lambda: draw.randint(1, 6), order=draw.choice)


def letters(state: Path) -> Sink:
    """Dead letters, as the daemon keeps them."""
    return connectors.open_sink("log", {"path": str(state / "dead_letters.sqlite"), "unique_keys": True})


class Announced:
    """A publisher that says what it was given: number and bytes."""

    failed_writes = 0

    def __init__(self, file: int | None = None) -> None:
        self.seen: dict[int, str] = {}
        self._file = file

    def publish(self, snapshot: Snapshot) -> None:
        """Remember, and say so where somebody listens."""
        told = hashlib.sha256(snapshot.answering.arrays["w"].tobytes()).hexdigest()[:16]
        self.seen[snapshot.number] = told
        if self._file is not None:
            os.write(self._file, f"{PUBLISHED} {snapshot.number} {told}\n".encode())

    def beat(self) -> None:
        """Nothing to do."""


def live(state: Path, partitions: int, *, seed: int, said: Path | None = None) -> tuple[str, Announced]:
    """From start to the end of the source, with a last checkpoint; the digest of its state, and what it published."""
    state.mkdir(exist_ok=True)
    file = None if said is None else os.open(said, os.O_WRONLY | os.O_APPEND)
    announced = Announced(file)
    own, sink = Ownership(state), letters(state)
    with started(
        state,
        source(partitions, random.Random(seed)),
        every_records=EVERY,
        seed=seed,
        own=own,
        letters=sink,
        publisher=announced,
    ) as loop:
        if file is not None:
            tell = file
            loop.writer.on_durable.append(lambda w, _: _say(tell, f"{DURABLE} {sum(w.positions.values())}"))
        while not loop.intake.drained:
            loop.turn(1.0)
            loop.writer.wait()
        loop.begin_checkpoint()
        loop.writer.wait()
        digest = loop.checkpoint().state_digest
    sink.close()
    if file is not None:
        os.close(file)
    return digest, announced


def _say(file: int, line: str) -> None:
    os.write(file, f"{line}\n".encode())


def traced(folder: Path, partitions: int) -> list[Op]:
    """What a process did to its disk. Errors: NotHereError without strace."""
    if shutil.which("strace") is None:
        raise NotHereError("no strace on the path")
    root, said, trace = folder / "disk", folder / "said", folder / "trace"
    root.mkdir()
    said.touch()
    told = [str(root / "state"), str(partitions), str(said)]
    command = [*STRACE, str(trace), sys.executable, "-m", "benchmarks.reliability.power", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"strace ended with {done.returncode}: {done.stderr[-500:]}")
    return operations(trace, root, said)


def cuts(ops: list[Op], root: Path, samples: int) -> "Iterator[tuple[int, dict[str, bytes | None], list[str]]]":
    """Each state that a cut may leave, once: after how many operations, what is found, what had been said before."""
    disk, seen, draw = Disk(root), set[str](), random.Random(5)
    said: list[str] = []
    for i, op in enumerate(ops):
        if op.kind == "said":
            said += op.data.decode().splitlines()
        disk.do(op)
        for state in disk.after_a_cut(draw, samples):
            digest = hashlib.sha256(repr((sorted(state.items()), said)).encode()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                yield i + 1, state, list(said)


def check_start(state: Path, partitions: int, said: list[str], undisturbed: str) -> None:
    """A start from what was found goes on as promised. Errors: AssertionError."""
    saved = Checkpoints(state / "checkpoints").newest()
    kept = sum(saved[0].positions.values()) if saved else 0
    told = [int(line.split()[1]) for line in said if line.startswith(DURABLE)]
    assert kept >= max(told, default=0), f"a checkpoint at {max(told)} was told to be durable, {kept} was found"
    digest, announced = live(state, partitions, seed=len(said))
    if partitions == 1:
        assert digest == undisturbed, "other bytes than an undisturbed run"
    for line in said:
        if line.startswith(PUBLISHED):
            number, served = int(line.split()[1]), line.split()[2]
            again = announced.seen.get(number, served)
            assert again == served, f"number {number} was served, and names other bytes now"
    found = sorted((record.key or b"").decode() for record in logged(state / "dead_letters.sqlite"))
    assert found == [f"a[{p}]@{BAD}" for p in range(partitions)], f"dead letters {found}"


def power_fails(bench: Bench, partitions: int) -> Outcome:
    """Over all states; the first that is not survived ends it."""
    ops = traced(bench.folder, partitions)
    root, starts, most = bench.folder / "disk", 0, 40 if bench.quick else 4000
    undisturbed, _ = live(bench.folder / "straight", partitions, seed=1)
    states = list(cuts(ops, root, samples=2 if bench.quick else 12))
    chosen = states if len(states) <= most else random.Random(1).sample(states, most)
    for i, found, said in chosen:
        folder = bench.folder / "found"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        put(found, folder)
        try:
            check_start(folder / "state", partitions, said, undisturbed)
        except Exception as error:
            raise AssertionError(f"after operation {i} of {len(ops)}, {ops[i - 1].kind}: {error}") from error
        starts += 1
    return Outcome(
        f"{len(ops)} operations, {len(states)} states: each start goes on, from a whole checkpoint not older than any that was "
        "told, to the same bytes; what was served keeps its number",
        starts,
    )


@scenario(
    "power",
    "power cut while learning, saving and serving",
    produced="states rebuilt from the traced system calls, one partition",
)
def one_partition(bench: Bench) -> Outcome:
    """Where no decision but the records makes the state."""
    return power_fails(bench, 1)


@scenario("power", "the same, two partitions", produced="the same; the order of partitions is known from the journal alone")
def two_partitions(bench: Bench) -> Outcome:
    """Where what was served depends on the journal."""
    return power_fails(bench, 2)


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]), seed=3, said=Path(sys.argv[3]))
