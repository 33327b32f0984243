"""Files: lines (JSON or CSV), the rows of an npz file, or the messages that a sink wrote; all numbered from 0.

A message's line is `{"value": "…", "key": "…", "headers": [["name", "…"]], "time_ms": 0}`, where bytes that are no text stand
as `{"base64": "…"}`. One process writes a file, any number may follow it; that it was replaced meanwhile goes unnoticed.
"""

import base64
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from connectors.arrays import Rows
from connectors.lines import BLOCK, Lines
from connectors.waiting import wait_for
from streamlearn.errors import PositionLostError, SinkError, SourceError
from streamlearn.records import Gap, Headers, Message, Positions, Record
from streamlearn.settings import Section, key

Format: TypeAlias = Literal["auto", "lines", "messages", "npz"]
SUFFIXES = {".npz": "npz", ".messages": "messages"}


class FileSource:
    """Reads a file from its beginning or from a position on. The format goes by the suffix unless it is given."""

    class Settings(Section):
        """Settings of the `file` source."""

        path: Path = key(..., "the file to read")
        name: str = key("", "name of the stream in partition names; left out, the file's name without its suffix")
        format: Format = key("auto", "lines (JSON or CSV), messages (what a file sink wrote) or npz; auto: by the suffix")
        header: bool = key(False, "whether the first line names columns and is no record")
        follow: bool = key(False, "wait for more at the end; a last line without line break is then no record yet")
        max_line_bytes: int = key(16 << 20, "longer lines are cut here", unit="bytes", ge=1)
        inputs: str = key("x", "npz: name of the array of inputs, one a row")
        labels: str = key("y", "npz: name of the array of labels; a file may have none")

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._clock, self._sleep = settings, clock, sleep
        self._format = SUFFIXES.get(settings.path.suffix, "lines") if settings.format == "auto" else settings.format
        self.partition = f"{settings.name or settings.path.stem}[0]"
        self._reader: Lines | Rows | None = None
        self._position = 0

    def seek(self, positions: Positions) -> None:
        """Errors: SourceError when the file cannot be read, PositionLostError when it ends before the named position."""
        self.close()
        try:
            self._reader = self._open()
            self._position = positions.get(self.partition, 0)
            found = self._reader.seek(self._position)
        except OSError as error:
            raise SourceError(f"{self._settings.path} cannot be read: {error.strerror}") from error
        if not found:
            end = self._reader.count()
            self.close()
            raise PositionLostError(
                f"{self.partition}@{self._position} is saved, but {self._settings.path} ends at {end}: it was"
                " cut or made anew; put the old file back, or start with an empty state directory"
            )

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """At the end of a file that is followed, looks again every 1 to 10 ms."""
        reader = self._opened()
        look = partial(self._read, reader, 0 if self.partition in paused else max_records)
        if self.exhausted():
            return []
        return wait_for(look, timeout_s, clock=self._clock, sleep=self._sleep)

    def positions(self) -> Positions:
        """The number of the next line or row."""
        return {self.partition: self._position}

    def ends(self) -> Positions:
        """Lines or rows in the file."""
        try:
            return {self.partition: max(self._position, self._opened().count())}
        except OSError:
            return self.positions()

    def identities(self) -> Mapping[str, str]:
        """None: a file may be copied."""
        return {}

    def exhausted(self) -> bool:
        """At the end of a file that is not followed."""
        follows = self._settings.follow and self._format != "npz"
        return not follows and self._position >= self.ends()[self.partition]

    def gaps(self) -> list[Gap]:
        """Never any: a file keeps what it holds."""
        return []

    def commit(self, positions: Positions) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> Lines | Rows:
        s = self._settings
        if self._format == "npz":
            return Rows(s.path, inputs=s.inputs, labels=s.labels)
        return Lines(s.path, skip=int(s.header), max_bytes=s.max_line_bytes, open_end=not s.follow)

    def _opened(self) -> Lines | Rows:
        if self._reader is None:
            raise SourceError(f"{self._settings.path} is not open: seek comes before poll")
        return self._reader

    def _read(self, reader: Lines | Rows, n: int) -> list[Record]:
        try:
            found: Sequence[bytes | tuple[bytes, Headers]] = reader.read(n)
        except OSError as error:
            raise SourceError(f"{self._settings.path} cannot be read: {error.strerror}") from error
        records = [self._record(self._position + i, item) for i, item in enumerate(found)]
        self._position += len(records)
        return records

    def _record(self, position: int, item: bytes | tuple[bytes, Headers]) -> Record:
        if isinstance(item, tuple):
            return Record(self.partition, position, item[0], headers=item[1])
        if self._format == "messages":
            return _unpacked(self.partition, position, item)
        return Record(self.partition, position, item)


class FileSink:
    """Appends messages to a file, one line each. A torn last line, left by a crash, is removed before the first write."""

    class Settings(Section):
        """Settings of the `file` sink."""

        path: Path = key(..., "the file to append to; the suffix .messages lets a file source know it")

    def __init__(self, settings: Settings) -> None:
        self._path = settings.path
        self._file: FileIO | None = None

    def write(self, messages: Sequence[Message]) -> None:
        """Errors: SinkError; some of the messages may then be in the file."""
        self._guard(lambda file: _write_all(file, b"".join(map(_packed, messages))))

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002 - the disk takes as long as it takes
        """Synced to the disk. Errors: SinkError."""
        if self._file is not None:
            self._guard(lambda file: os.fsync(file.fileno()))

    def close(self) -> None:
        """Flush and let go of the file."""
        if self._file is not None:
            self.flush(0.0)
            self._file.close()
            self._file = None

    def _guard(self, act: Callable[[FileIO], None]) -> None:
        """After an error the file is opened anew, which removes what was torn."""
        try:
            self._file = self._file or _append_to(self._path)
            act(self._file)
        except OSError as error:
            file, self._file = self._file, None
            if file is not None:
                file.close()
            raise SinkError(f"{self._path} cannot be written: {error.strerror}") from error


class _Base64(msgspec.Struct):
    base64: str


class _Line(msgspec.Struct, omit_defaults=True):
    value: str | _Base64 | None
    key: str | _Base64 | None = None
    headers: list[tuple[str, str | _Base64]] = []
    time_ms: int | None = None


_LINE = msgspec.json.Decoder(_Line)


def _packed(message: Message) -> bytes:
    headers = [(name, _text(value) or "") for name, value in message.headers]
    return msgspec.json.encode(_Line(_text(message.value), _text(message.key), headers, message.time_ms)) + b"\n"


def _unpacked(partition: str, position: int, line: bytes) -> Record:
    """The message of a line; a line that is none becomes a record of its bytes, which decoding then refuses."""
    try:
        found = _LINE.decode(line)
        headers = tuple((name, _bytes(value) or b"") for name, value in found.headers)
        return Record(partition, position, _bytes(found.value), _bytes(found.key), headers, found.time_ms)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Record(partition, position, line)


def _text(found: bytes | None) -> str | _Base64 | None:
    if found is None:
        return None
    try:
        return found.decode()
    except UnicodeDecodeError:
        return _Base64(base64.b64encode(found).decode())


def _bytes(found: str | _Base64 | None) -> bytes | None:
    if isinstance(found, _Base64):
        return base64.b64decode(found.base64, validate=True)
    return None if found is None else found.encode()


def _append_to(path: Path) -> FileIO:
    """The file, without a torn last line. Errors: OSError."""
    file = FileIO(path, "a+")
    try:
        file.truncate(_whole(file))
    except BaseException:
        file.close()
        raise
    return file


def _whole(file: FileIO) -> int:
    """One past the last line break."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        begin = max(0, at - BLOCK)
        file.seek(begin)
        found = (file.read(at - begin) or b"").rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        at = begin
    return 0


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
