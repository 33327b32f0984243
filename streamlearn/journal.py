"""Decisions that depended on a clock, on load or on a person, each written before it takes effect.

Learning is a function of the records and of these decisions. After a crash the process goes back to its last checkpoint and
takes the written decisions again, in their order, before it makes new ones: so the history it lost is the history it relives.

One segment file begins with each checkpoint and is removed with it, which bounds the journal (P3). A segment is JSON lines,
one entry a line; a torn last line is a decision that had not taken effect.
"""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from streamlearn.errors import CheckpointError
from streamlearn.records import Json

log = structlog.get_logger()

Entry = dict[str, Json]
"""`{"kind": …, values…}`. Kinds: `start` {positions}: where the very first start began, the first entry of all;
`order` {partition, until}: read this partition up to that position before any other."""


class Journal:
    """Written in the learner's thread. While `script` holds entries, decisions are taken from it and not written again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script: deque[Entry] = deque()
        self._segment = ""
        self._taken = 0  # entries of the script that took effect since `_segment` began
        self._file: Any = None
        self._unsynced = False
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, segment: str, taken: int = 0) -> None:
        """Read what followed `taken` entries of `segment` into `script`, and go on writing behind it.

        Errors  CheckpointError when the segment is missing while later ones exist, or when one is damaged.
        """
        segments = [path for path in self._segments() if path.stem >= segment]
        if segments and segments[0].stem != segment:
            raise CheckpointError(f"journal segment {segment} is missing in {self.folder}, but {segments[0].name} follows it")
        entries = [entry for path in segments for entry in _entries(path)]
        self.script = deque(entries[taken:])
        self._segment, self._taken = segment, taken
        self._open(segments[-1] if segments else self.folder / f"{segment}.jsonl")

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
        """Start the segment of a checkpoint that is being taken. While a script runs, its own segments go on."""
        if not self.script:
            self.flush()
            self._segment, self._taken = segment, 0
            self._open(self.folder / f"{segment}.jsonl")

    def scripted(self) -> Entry | None:
        """The decision that has to be taken next; None when new ones may be made."""
        return self.script[0] if self.script else None

    def took(self) -> None:
        """The scripted decision has taken effect whole."""
        self.script.popleft()
        self._taken += 1

    def write(self, kind: str, **values: Json) -> None:
        """Append an entry; the operating system has it when this returns, the disk after `flush`."""
        self._file.write(msgspec.json.encode({"kind": kind, **values}) + b"\n")
        self._unsynced = True

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._unsynced:
            os.fsync(self._file.fileno())
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
        if self._file is not None:
            self._file.close()
        _drop_torn_line(path)
        self._file = path.open("ab", buffering=0)


def _entries(path: Path) -> list[Entry]:
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        log.warning("journal.torn_line", segment=path.name, dropped_bytes=len(lines[-1]))
    try:
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines[:-1]]
    except msgspec.DecodeError as error:
        raise CheckpointError(f"journal {path.name} is damaged: {error}; start from a checkpoint after it") from error


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(whole)
