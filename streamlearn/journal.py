"""Decisions that depended on a clock, on load or on a person, each written before it takes effect.

Learning is a function of the records and of these decisions. After a crash the process goes back to its last checkpoint and
takes the written decisions again, in their order, before it makes new ones: so the history it lost is the history it relives.

One segment file begins with each checkpoint and is removed with it, which bounds the journal (P3). A segment is JSON lines,
one entry a line; a torn last line is a decision that had not taken effect.
"""

import errno
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from streamlearn.disk import make_folder, sync_folder
from streamlearn.errors import CheckpointError, DiskError
from streamlearn.records import Json

log = structlog.get_logger()

Entry = dict[str, Json]
"""`{"kind": …, values…}`. Kinds: `start` {positions}: where the very first start began, the first entry of all;
`order` {partition, until}: read this partition up to that position before any other;
`expire` {until}: what has waited for a label since before that place in the table has waited for too long;
`split` {rows}: memory did not suffice for more rows than that in one call;
`aside` {partition, position, reason}: this record cannot be learned, and goes to the dead letters."""


class Journal:
    """Written in the learner's thread. While `script` holds entries, decisions are taken from it and not written again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script: deque[Entry] = deque()
        self.aside: dict[tuple[str, int], str] = {}  # (partition, position) → reason: of the script, however far ahead
        self.most_rows: int | None = None  # learned in one call, where memory did not suffice for more
        self._segment = ""
        self._taken = 0  # entries of the script that took effect since `_segment` began
        self._file: Any = None
        self._unsynced = False
        make_folder(folder)

    def resume(self, segment: str, taken: int = 0) -> None:
        """Read what followed `taken` entries of `segment` into `script`, and go on writing behind it.

        Errors  CheckpointError when the segment is missing while later ones exist, or when one is damaged.
        """
        segments = [path for path in self._segments() if path.stem >= segment]
        if segments and segments[0].stem != segment:
            raise CheckpointError(f"journal segment {segment} is missing in {self.folder}, but {segments[0].name} follows it")
        entries = [entry for path in segments for entry in _entries(path)]
        self.script = deque(entries[taken:])
        self._look_ahead()
        self._segment, self._taken = segment, taken
        self._open(segments[-1] if segments else self.folder / f"{segment}.jsonl")

    def _look_ahead(self) -> None:
        """A record may be learned before the entry that sets it aside is reached: that follows the run which it came in."""
        self.aside = {(e["partition"], e["position"]): e["reason"] for e in self.script if e["kind"] == "aside"}
        self.most_rows = min((e["rows"] for e in self.script if e["kind"] == "split"), default=None)

    def move(self, segment: str) -> None:
        """Go on in a segment of a new writer epoch, with the rest of the script: the old owner may still write to its own."""
        script = list(self.script)
        self._open(self.folder / f"{segment}.jsonl")
        for entry in script:
            self.write(**entry)
        self._unsynced = True
        self.flush()
        self._segment, self._taken = segment, 0

    def place(self) -> dict[str, Json]:
        """Where a checkpoint taken now stands: arguments of `resume`."""
        return {"segment": self._segment, "taken": self._taken}

    @property
    def newest(self) -> str:
        """The segment that is being written."""
        return Path(self._file.name).stem

    def begin(self, segment: str) -> None:
        """Start the segment of a checkpoint that is being taken. While a script runs, its own segments go on.

        Errors  DiskError, and then the old segment goes on.
        """
        if not self.script:
            self.flush()
            self._open(self.folder / f"{segment}.jsonl")
            self._segment, self._taken = segment, 0

    def scripted(self) -> Entry | None:
        """The decision that has to be taken next; None when new ones may be made."""
        return self.script[0] if self.script else None

    def took(self) -> None:
        """The scripted decision has taken effect whole."""
        self.script.popleft()
        self._taken += 1

    def write(self, kind: str, **values: Json) -> None:
        """Append an entry; the operating system has it when this returns, the disk after `flush`.

        Errors  DiskError, and then no part of it is there.
        """
        line, end = msgspec.json.encode({"kind": kind, **values}) + b"\n", os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(end)
            raise DiskError(
                f"journal {self.newest} does not take an entry: {error}; nothing is learned until it does"
            ) from error
        self._unsynced = True

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._unsynced:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:  # what the disk has now, nobody knows: what was decided is read back by the next start
                raise CheckpointError(f"journal {self.newest} could not be flushed: {error}") from error
            self._unsynced = False

    def cut(self, oldest: str) -> None:
        """Remove the segments from before the oldest kept checkpoint."""
        for path in self._segments():
            if path.stem < oldest:
                path.unlink()

    def close(self) -> None:
        """Flush and let go. May be called twice."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def _segments(self) -> Sequence[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def _open(self, path: Path) -> None:
        is_new = not path.exists()
        try:
            _drop_torn_lines(path)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise DiskError(f"journal {path.stem} cannot be written: {error}") from error
        if self._file is not None:
            self._file.close()
        self._file = file
        if is_new:
            sync_folder(self.folder)  # what is flushed into it would not outlive its name


def _entries(path: Path) -> list[Entry]:
    content = path.read_bytes()
    whole = _whole(content)
    if whole < len(content):
        log.warning("journal.torn_line", segment=path.name, dropped_bytes=len(content) - whole)
    try:
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in content[:whole].splitlines()]
    except msgspec.DecodeError as error:
        raise CheckpointError(f"journal {path.name} is damaged: {error}; start from a checkpoint after it") from error


def _whole(content: bytes) -> int:
    """Bytes of the lines that were written whole, up to a hole: a power cut leaves holes of what was not flushed."""
    hole = content.find(b"\0")
    return content.rfind(b"\n", 0, len(content) if hole < 0 else hole) + 1


def _drop_torn_lines(path: Path) -> None:
    if path.exists():
        whole = _whole(path.read_bytes())
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
