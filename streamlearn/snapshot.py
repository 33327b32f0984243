"""What is served: numbered, read-only, and whole. The learner's process publishes; servers, in any process, take the newest.

Two ways with one face. `FilePublisher` and `FollowedFile` speak through one safetensors file that is replaced by rename: the
reader maps it, so opening costs the same for any size, and a file that was replaced stays valid for whoever still reads it.
`Reference` hands the object over inside one process. numpy and msgspec only: a follower never loads torch.
"""

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from streamlearn.errors import ConfigError, SnapshotError
from streamlearn.records import Snapshot
from streamlearn.snapshot_file import FILE, read, write

HEARTBEAT = "heartbeat"
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, refused when it is not

log = structlog.get_logger()


class Current(Protocol):
    """Used by servers, from their own thread."""

    @property
    def failed_loads(self) -> int:
        """Snapshots that could not be read, so far."""

    @property
    def refuses(self) -> bool:
        """Whether the newest snapshot there is could not be read."""

    def current(self) -> Snapshot | None:
        """The newest snapshot known here; None before the first. Take it once for each answer."""

    def age_s(self) -> float:
        """Seconds since the learner last gave a sign of life; infinite before the first."""


class Refusals:
    """Snapshots that a server did not take. Of those in a row only the first is a warning: ten may come in a second."""

    def __init__(self) -> None:
        self.total = self.in_a_row = 0

    def refused(self, error: SnapshotError, *, before: Snapshot | None) -> None:
        """The newest one, so that the one `before` it stays."""
        self.total += 1
        self.in_a_row += 1
        tell = log.warning if self.in_a_row == 1 else log.debug
        serving = None if before is None else before.number
        stays = "nothing is served until one can be taken" if before is None else "the one before it stays, and grows old"
        tell("snapshot.refused", error=str(error), serving=serving, next_step=stays)

    def taken(self, snapshot: Snapshot) -> None:
        """The newest one."""
        if self.in_a_row:
            log.info("snapshot.taken_again", serving=snapshot.number, refused=self.in_a_row)
        self.in_a_row = 0


class Reference:
    """Publisher and Current of one process: one reference is swapped, nothing is copied."""

    refuses = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.failed_loads = self.failed_writes = 0
        self._clock = clock
        self._seen = -math.inf
        self._snapshot: Snapshot | None = None

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.beat()

    def beat(self) -> None:
        self._seen = self._clock()

    def current(self) -> Snapshot | None:
        return self._snapshot

    def age_s(self) -> float:
        return self._clock() - self._seen


class FilePublisher:
    """Publishes into `folder`, which servers on this or another host follow.

    A full disk stops no learning: the snapshot before stays in place, and each later call tries again.
    """

    def __init__(self, folder: Path) -> None:
        self.failed_writes = 0
        self._folder = folder
        self._unwritten: Snapshot | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def publish(self, snapshot: Snapshot) -> None:
        self._unwritten = snapshot
        self.beat()

    def beat(self) -> None:
        try:
            (self._folder / HEARTBEAT).touch()  # first: a snapshot that cannot be written is no silence
            if self._unwritten is not None:
                write(self._unwritten, self._folder)
                self._unwritten = None
        except (OSError, SnapshotError) as error:
            self.failed_writes += 1
            if self.failed_writes.bit_count() == 1:  # the 1st, 2nd, 4th, …: ten a second would fill the log as well
                log.error("snapshot.not_published", error=str(error), failed=self.failed_writes, next_step="trying again")


class FollowedFile:
    """The newest snapshot of a folder that another process publishes into. `poll` looks; `current` never touches a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refusals = Refusals()
        self._seen: tuple[int, int] | None = None
        self._snapshot: Snapshot | None = None

    def changed(self) -> bool:
        """Whether `poll` would read: the file is another one than the one read last. One `stat`, about a microsecond."""
        found = self._identity()
        return found is not None and found != self._seen

    def poll(self) -> Snapshot | None:
        """Read the file if it is a new one, and return what is current now. A bad file is counted, the one before it stays."""
        found = self._identity()
        if found is None or found == self._seen:
            return self._snapshot
        self._seen = found
        try:
            self._snapshot = read(self._folder / FILE)
            self._refusals.taken(self._snapshot)
        except SnapshotError as error:
            self._refusals.refused(error, before=self._snapshot)
        return self._snapshot

    def current(self) -> Snapshot | None:
        return self._snapshot

    @property
    def failed_loads(self) -> int:
        return self._refusals.total

    @property
    def refuses(self) -> bool:
        return self._refusals.in_a_row > 0

    def age_s(self) -> float:
        times = [_modified(self._folder / name) for name in (FILE, HEARTBEAT)]
        return max(0.0, time.time() - max(times))

    def published_s(self) -> float:
        """When the newest file there is was written, since the epoch, be it one that was refused; NaN before the first."""
        found = _modified(self._folder / FILE)
        return found if math.isfinite(found) else math.nan

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def live_folder(
    state_dir: Path, configured: Path | str | None = None, *, needed_bytes: int = 1 << 24, memory: Path = MEMORY
) -> Path:
    """Where to publish: as configured, else a folder of ours on tmpfs, else `STATE/live` with a warning. Made if absent."""
    if configured is not None:
        folder = Path(configured)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = _in_memory(state_dir, memory)
    obstacle = _obstacle(folder, needed_bytes)
    if obstacle is None:
        return folder
    folder = state_dir / "live"
    log.warning("snapshot.on_disk", folder=str(folder), reason=obstacle, next_step="slower; or set publish.folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def newest(folder: Path, *, memory: Path = MEMORY) -> Snapshot:
    """What was published last into `folder`, or by the daemon whose state directory that is.

    Errors  ConfigError when there is nothing; SnapshotError for a damaged file.
    """
    for place in (folder, _in_memory(folder, memory), folder / "live"):
        if (place / FILE).exists():
            return read(place / FILE)
    raise ConfigError(
        f"{folder} holds no snapshot, and none is published from there: expected the state directory of a daemon that runs or"
        " ran since this machine started, or the folder that it publishes to, which its log names"
    )


def _in_memory(state_dir: Path, memory: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(state_dir.resolve()), digest_size=8).hexdigest()
    return memory / f"streamlearn-{name}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def _obstacle(folder: Path, needed_bytes: int) -> str | None:
    """Why `folder` cannot be used, or None once it is there, ours alone, and has room."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            return f"{folder} belongs to somebody else or is open to others"
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be used ({error})"
    return None if free >= needed_bytes else f"{folder} has {free} bytes free, {needed_bytes} are needed"
