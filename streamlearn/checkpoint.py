"""Checkpoints: the whole state of the daemon and its positions, as one atomic unit.

A checkpoint is a folder `EPOCH-SEQUENCE` with `arrays.safetensors` and `manifest.json`. It is written beside, flushed, renamed,
and the rename is flushed: either it exists whole or not at all. Arrays are safetensors and the rest is JSON, so nothing in a
checkpoint is ever executed (P8). A damaged one is set aside loudly and the one before it is used; if none is left, the start
is refused rather than made from nothing.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
import structlog

from streamlearn.disk import make_folder, sync_folder, write_file
from streamlearn.errors import CheckpointError
from streamlearn.records import Array, Json, Positions, State

log = structlog.get_logger()

SCHEMA = 1
FIRST = "0001-00000000"
"""Writer epoch and sequence of what comes before the first checkpoint: the name of the first journal segment."""
KEPT = "kept"
"""Name of an empty file in a checkpoint that retention does not remove."""
MODEL_PARTS = ("learner", "labels", "metrics", "drift")
"""Parts of the state that the *model* digest covers; the *state* digest covers all."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state to be written, or one that was read and found whole."""

    number: int  # of the state: learned chunks
    state: State
    positions: Positions
    journal: Mapping[str, Json]  # arguments of `Journal.resume`

    @property
    def model_digest(self) -> str:
        """Of parameters, rates, memory, labels, transforms, random state and metrics."""
        return digest(State.nest({name: self.state.under(name) for name in MODEL_PARTS}))

    @property
    def state_digest(self) -> str:
        """Of all parts and the positions. Not of the journal's place, which depends on when checkpoints were taken."""
        return digest(State(self.state.arrays, {**self.state.values, "positions": dict(self.positions), "number": self.number}))


@dataclass(frozen=True, slots=True)
class Written:
    """A durable checkpoint."""

    name: str
    number: int
    positions: Positions
    size_bytes: int
    created_ms: int  # since the epoch, UTC
    model_digest: str
    state_digest: str


def digest(state: State) -> str:
    """SHA-256 over names, types, shapes and bytes of the arrays, and over the values as canonical JSON."""
    sha = hashlib.sha256()
    for name in sorted(state.arrays):
        array = np.ascontiguousarray(state.arrays[name])
        sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        sha.update(array.tobytes())
    sha.update(_canonical(state.values))
    return sha.hexdigest()


class Checkpoints:
    """The folder of checkpoints. Written by one thread; read before the start, and by `inspect`."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        self.folder, self.keep = folder, keep

    def names(self) -> list[str]:
        """Whole checkpoints, oldest first."""
        return sorted(path.name for path in self.folder.glob("[0-9]*-[0-9]*") if path.is_dir())

    def kept(self) -> list[str]:
        """Those that retention does not remove, oldest first."""
        return [name for name in self.names() if (self.folder / name / KEPT).exists()]

    def regular(self) -> list[str]:
        """Those that it counts, oldest first."""
        return [name for name in self.names() if not (self.folder / name / KEPT).exists()]

    def keep_newest(self, most: int) -> str | None:
        """Take the newest checkpoint out of retention, and of those taken out leave at most `most` there; None without one.

        Errors  CheckpointError.
        """
        names = self.names()
        if not names:
            return None
        try:
            (self.folder / names[-1] / KEPT).touch()
            sync_folder(self.folder / names[-1])
            for old in self.kept()[:-most]:
                (self.folder / old / KEPT).unlink()  # from here on it is one of the others
        except OSError as error:
            raise CheckpointError(f"checkpoint {names[-1]} could not be kept in {self.folder}: {error}") from error
        return names[-1]

    def next_name(self, *, after: str = FIRST) -> str:
        """Above `after`, the newest journal segment, and every name ever used here, also of those that were set aside."""
        used = [path.name.removeprefix("torn-") for path in self.folder.glob("*[0-9]*-[0-9]*")]
        epoch, _, sequence = max([after, *(name for name in used if not name.startswith("."))]).partition("-")
        return f"{epoch}-{int(sequence) + 1:08d}"

    def newest(self) -> tuple[Checkpoint, Written] | None:
        """The newest whole checkpoint; None when there never was one.

        Errors  CheckpointError when all are damaged, or when the newest was written by another schema.
        """
        for name in reversed(self.names()):
            try:
                return self.read(name)
            except _DamagedError as error:
                log.error("checkpoint.damaged", name=name, error=str(error), next_step="using the one before it")
                (self.folder / name).rename(self.folder / f"torn-{name}")
        if damaged := len(list(self.folder.glob("torn-*"))):  # also those that an earlier start set aside
            raise CheckpointError(f"all {damaged} checkpoints in {self.folder} are damaged: restore one, or move them away")
        return None

    def number(self, name: str) -> int:
        """Of the state in it. Errors: CheckpointError."""
        number: int = _manifest(self.folder / name)["number"]
        return number

    def read(self, name: str) -> tuple[Checkpoint, Written]:
        """One checkpoint by name, checked against its digests. Errors: CheckpointError."""
        manifest = _manifest(self.folder / name)
        arrays = _arrays(self.folder / name, manifest["arrays_sha256"])
        checkpoint = Checkpoint(
            manifest["number"], State(arrays, manifest["values"]), manifest["positions"], manifest["journal"]
        )
        if checkpoint.state_digest != manifest["state_digest"]:
            raise _DamagedError(f"checkpoint {name}: its state has not the digest that its manifest names")
        return checkpoint, _written(self.folder / name, manifest)

    def save(
        self, name: str, checkpoint: Checkpoint, *, created_ms: int, is_owner: Callable[[], bool] = lambda: True
    ) -> Written:
        """Durable under `name` when this returns; the oldest beyond `keep` are removed.

        Errors  CheckpointError, also when another daemon has become the owner: then nothing was added or removed.
        """
        beside, final = self.folder / f".{name}", self.folder / name
        try:
            for half in self.folder.glob(".[0-9]*-[0-9]*"):  # left by a process that was killed while it wrote
                shutil.rmtree(half)
            make_folder(self.folder)
            beside.mkdir()
            arrays = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in checkpoint.state.arrays.items()})
            write_file(beside / "arrays.safetensors", arrays)
            write_file(beside / "manifest.json", _sealed(_body(checkpoint, arrays, created_ms)))
            sync_folder(beside)
            if not is_owner():
                raise CheckpointError(f"checkpoint {name} was not added to {self.folder}: another daemon has taken over")
            beside.rename(final)
            sync_folder(self.folder)
            for old in self.regular()[: -self.keep]:
                (self.folder / old).rename(self.folder / f".{old}")  # none is seen that is removed by half
                shutil.rmtree(self.folder / f".{old}")
        except OSError as error:
            raise CheckpointError(f"checkpoint {name} could not be written to {self.folder}: {error}") from error
        return _written(final, _manifest(final))

    def oldest_segment(self) -> str:
        """Where the journal has to begin so that each regular checkpoint can go on: at the very first while none was removed.

        One that a drift kept is older than that after a while: `rollback` goes back to it, under a new journal.
        """
        names = self.regular()
        if len(names) < self.keep:
            return FIRST
        try:
            segment: str = _manifest(self.folder / names[0])["journal"]["segment"]
        except _DamagedError:
            return FIRST  # what it needs is not known
        return segment


class CheckpointWriter:
    """Writes in a thread of its own, one at a time, so that learning pauses for the copy of the state alone.

    A checkpoint that cannot be written is counted and logged, and the next one is tried when it is due: the ones before stand.
    """

    def __init__(self, store: Checkpoints, *, clock_ms: Callable[[], int]) -> None:
        self.store, self.failed = store, 0
        self.is_owner: Callable[[], bool] = lambda: True  # whether this process may still write; asked before the rename
        self.last: Written | None = None
        self.on_durable: list[Callable[[Written, float], None]] = []  # called in the writing thread: checkpoint, seconds
        self._clock_ms = clock_ms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._keeping: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def next_name(self, *, after: str) -> str:
        """The name of the checkpoint that is taken next."""
        return self.store.next_name(after=after)

    def start(self, name: str, checkpoint: Checkpoint) -> None:
        """Begin to write; those in `on_durable` are told when it is done."""
        self._writing = self._thread.submit(self._write, name, checkpoint)

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        began = time.perf_counter()
        try:
            self.last = self.store.save(name, checkpoint, created_ms=self._clock_ms(), is_owner=self.is_owner)
        except CheckpointError as error:
            self.failed += 1
            log.error("checkpoint.failed", error=str(error), next_step="trying again when the next one is due")
            return
        seconds = time.perf_counter() - began
        for tell in self.on_durable:
            tell(self.last, seconds)

    def keep(self, most: int) -> None:
        """Take the newest durable checkpoint out of retention, after what is being written now, and at most `most` of them."""
        self._keeping = self._thread.submit(self._keep, most)

    def _keep(self, most: int) -> None:
        try:
            name = self.store.keep_newest(most)
        except CheckpointError as error:
            log.error("checkpoint.not_kept", error=str(error))
            return
        log.info("checkpoint.kept", name=name, reason="drift", most=most)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when nothing is being written or kept."""
        for pending in (self._writing, self._keeping):
            if pending is not None:
                pending.result(timeout_s)

    def close(self) -> None:
        """Wait for the write in progress. May be called twice."""
        self._thread.shutdown()


class _DamagedError(CheckpointError):
    pass


def _body(checkpoint: Checkpoint, arrays: bytes, created_ms: int) -> dict[str, Json]:
    return {
        "schema": SCHEMA,
        "number": checkpoint.number,
        "created_ms": created_ms,
        "positions": dict(checkpoint.positions),
        "journal": dict(checkpoint.journal),
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "model_digest": checkpoint.model_digest,
        "state_digest": checkpoint.state_digest,
        "values": dict(checkpoint.state.values),
    }


def _canonical(values: Json) -> bytes:
    return msgspec.json.encode(values, order="sorted")


def _sealed(body: Mapping[str, Json]) -> bytes:
    return _canonical({"body": body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        sealed = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])
        body: dict[str, Any] = sealed["body"]
        whole = sealed["sha256"] == hashlib.sha256(_canonical(body)).hexdigest()
        schema = int(body["schema"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise _DamagedError(f"checkpoint {folder.name}: its manifest cannot be read: {error}") from error
    if not whole:
        raise _DamagedError(f"checkpoint {folder.name}: its manifest has not the digest it names")
    if schema != SCHEMA:
        remedy = "upgrade" if schema > SCHEMA else "start the version that wrote it, or begin with an empty state directory"
        raise CheckpointError(f"checkpoint {folder.name} was written by schema {schema}, this program reads {SCHEMA}: {remedy}")
    return body


def _arrays(folder: Path, sha256: str) -> dict[str, Array]:
    try:
        content = (folder / "arrays.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _DamagedError(f"checkpoint {folder.name}: its arrays have not the digest that its manifest names")
        return dict(safetensors.numpy.load(content))
    except (OSError, safetensors.SafetensorError) as error:
        raise _DamagedError(f"checkpoint {folder.name}: its arrays cannot be read: {error}") from error


def _written(folder: Path, manifest: Mapping[str, Any]) -> Written:
    fields = {name: manifest[name] for name in ("number", "positions", "created_ms", "model_digest", "state_digest")}
    return Written(name=folder.name, size_bytes=sum(path.stat().st_size for path in folder.iterdir()), **fields)
