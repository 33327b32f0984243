"""The embedded log: a stream in one SQLite file, with positions, seek and retention, for one machine and no broker.

Any number of processes may write and read at once (WAL). Positions are dense from 0 and given out under the write lock. Writes
are durable when `flush` returns: each transaction is synced to the disk (synchronous=FULL). Retention is the writer's: a sink
with `max_records` or `max_bytes` removes the oldest in the transaction that writes, and always keeps the newest record.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from connectors.waiting import LONGEST_S, wait_for
from streamlearn.errors import PositionLostError, SinkError, SourceError
from streamlearn.records import Gap, Headers, Message, Positions, Record
from streamlearn.settings import Section, key

VERSION = 1
SCHEMA = (
    "CREATE TABLE records (position INTEGER PRIMARY KEY, value BLOB, key BLOB, headers BLOB, time_ms INTEGER, size INTEGER)",
    "CREATE TABLE totals (bytes INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0)",
    f"PRAGMA user_version = {VERSION}",
)
BUFFERED = 1000  # messages after which `write` writes by itself


class LogSource:
    """Reads a log from a position on, and waits for more at its end. The log may be made later than the source."""

    class Settings(Section):
        """Settings of the `log` source."""

        path: Path = key(..., "the log's file; made empty when it is not there")
        name: str = key("", "name of the stream in partition names; left out, the file's name without its suffix")
        start: Literal["earliest", "latest"] = key("earliest", "where the very first start begins")
        on_gap: Literal["stop", "skip"] = key("stop", "when retention has passed the saved position: stop, or skip and count")
        timeout_s: float = key(10.0, "longest wait for a locked file", unit="s", gt=0)
        max_poll_bytes: int = key(8 << 20, "payload after which one poll returns", unit="bytes", ge=1)

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._clock, self._sleep = settings, clock, sleep
        self.partition = f"{settings.name or settings.path.stem}[0]"
        self._database: sqlite3.Connection | None = None
        self._position, self._seen = 0, -1
        self._gaps: list[Gap] = []

    def seek(self, positions: Positions) -> None:
        """Errors: PositionLostError when the log begins after the named position, or ends before it."""
        try:
            self._database = _open(self._settings.path, self._settings.timeout_s)
            begin, end = _bounds(self._database)
        except (sqlite3.Error, OSError, msgspec.ValidationError) as error:
            raise SourceError(f"log {self._settings.path} cannot be opened: {error}") from error
        asked = positions.get(self.partition)
        first_start = end if self._settings.start == "latest" else begin
        self._position = first_start if asked is None else asked
        if self._position > end:
            raise PositionLostError(
                f"{self.partition}@{self._position} is saved, but {self._settings.path} ends at {end}: it was made anew or"
                " truncated; put the old file back, or start with an empty state directory"
            )
        self._pass_gap(begin)

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """At the end, looks again every 1 to 10 ms."""
        limit = 0 if self.partition in paused else max_records
        self._seen = -1
        return wait_for(lambda: self._look(limit), timeout_s, clock=self._clock, sleep=self._sleep)

    def positions(self) -> Positions:
        """One past the last record that `poll` returned, or where reading began."""
        return {self.partition: self._position}

    def ends(self) -> Positions:
        """One past the newest record in the file."""
        try:
            return {self.partition: _bounds(self._connection)[1]}
        except sqlite3.Error:
            return self.positions()

    def identities(self) -> Mapping[str, str]:
        """A random number from when the file was made; none in files of before 2026-11-24."""
        made = self._connection.execute("PRAGMA application_id").fetchone()[0]
        return {self.partition.partition("[")[0]: str(made)} if made else {}

    def exhausted(self) -> bool:
        """Never: a writer may come."""
        return False

    def gaps(self) -> list[Gap]:
        """What was skipped since the last call."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def commit(self, positions: Positions) -> None:
        """Nothing to tell: retention is by size, not by readers."""

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise SourceError(f"log {self._settings.path} is not open: seek comes before poll")
        return self._database

    def _look(self, limit: int) -> list[Record]:
        """What is there, when the file has changed since the last look."""
        try:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise SourceError(f"log {self._settings.path} cannot be read: {error}") from error
        changed, self._seen = version != self._seen, version
        return self._read(limit) if changed and limit else []

    def _read(self, max_records: int) -> list[Record]:
        query = "SELECT position, value, key, headers, time_ms, size FROM records WHERE position >= ? ORDER BY position LIMIT ?"
        records: list[Record] = []
        room = self._settings.max_poll_bytes
        try:
            for position, value, key_, headers, time_ms, size in self._connection.execute(query, (self._position, max_records)):
                if not records:
                    self._pass_gap(position)
                records.append(Record(self.partition, position, value, key_, _headers(headers), time_ms))
                room -= size
                if room <= 0:
                    break
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise SourceError(f"log {self._settings.path} cannot be read: {error}") from error
        if records:
            self._position = records[-1].position + 1
        return records

    def _pass_gap(self, begin: int) -> None:
        if begin <= self._position:
            return
        if self._settings.on_gap == "stop":
            raise PositionLostError(
                f"{self.partition}@{self._position} is the next to read, but {self._settings.path} begins at {begin}: retention"
                f" removed {begin - self._position} records unread; set on_gap to 'skip' to go on behind them"
            )
        self._gaps.append(Gap(self.partition, self._position, begin))
        self._position = begin


class LogSink:
    """Appends to a log. Several may write to one file, also from several processes."""

    class Settings(Section):
        """Settings of the `log` sink."""

        path: Path = key(..., "the log's file; made when it is not there")
        max_records: int | None = key(None, "records kept; the oldest go first; left out, no bound", unit="records", ge=1)
        max_bytes: int | None = key(None, "payload kept; the oldest go first; left out, no bound", unit="bytes", ge=1)
        unique_keys: bool = key(
            False, "leave a message out when a record with its key is in the log: writing twice is harmless"
        )
        timeout_s: float = key(10.0, "longest wait for another writer", unit="s", gt=0)

    def __init__(self, settings: Settings, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._settings, self._clock_ms = settings, clock_ms
        self._database: sqlite3.Connection | None = None
        self._buffer: list[Message] = []

    def write(self, messages: Sequence[Message]) -> None:
        """Taken into a bounded buffer; not seen by readers before `flush` or a full buffer."""
        self._buffer.extend(messages)
        if len(self._buffer) >= BUFFERED:
            self.flush(self._settings.timeout_s)

    def flush(self, timeout_s: float) -> None:
        """One transaction, synced to the disk. After an error none of the buffered messages is in the log, or kept here."""
        messages, self._buffer = self._buffer, []
        if not messages:
            return
        try:
            if self._database is None:
                self._database = _open(self._settings.path, timeout_s)
                if self._settings.unique_keys:
                    self._database.execute("CREATE INDEX IF NOT EXISTS records_key ON records (key)")
            self._database.execute(f"PRAGMA busy_timeout = {max(1, int(1000 * timeout_s))}")
            self._transact(self._database, messages)
        except (sqlite3.Error, OSError, msgspec.ValidationError) as error:
            raise SinkError(f"log {self._settings.path} did not take {len(messages)} messages: {error}") from error

    def close(self) -> None:
        """Flush and let go of the file."""
        try:
            self.flush(self._settings.timeout_s)
        finally:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _transact(self, database: sqlite3.Connection, messages: Sequence[Message]) -> None:
        database.execute("BEGIN IMMEDIATE")
        try:
            added = self._insert(database, messages)
            self._retain(database, added)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _insert(self, database: sqlite3.Connection, messages: Sequence[Message]) -> int:
        """Payload bytes of what was new. A message without a time gets that of its writing, as from a broker."""
        position, added, now_ms = _bounds(database)[1], 0, self._clock_ms()
        for message in messages:
            if self._settings.unique_keys and _has_key(database, message.key):
                continue
            headers = msgspec.msgpack.encode(message.headers) if message.headers else None
            size = len(message.value or b"") + len(message.key or b"") + len(headers or b"")
            row = (position, message.value, message.key, headers, now_ms if message.time_ms is None else message.time_ms, size)
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
            position, added = position + 1, added + size
        return added

    def _retain(self, database: sqlite3.Connection, added: int) -> None:
        database.execute("UPDATE totals SET bytes = bytes + ?", (added,))
        begin, end = _bounds(database)
        keep = begin if self._settings.max_records is None else max(begin, end - self._settings.max_records)
        keep = max(keep, self._first_within_bytes(database))
        if keep > begin:
            removed = database.execute("SELECT TOTAL(size) FROM records WHERE position < ?", (keep,)).fetchone()[0]
            database.execute("DELETE FROM records WHERE position < ?", (keep,))
            database.execute("UPDATE totals SET bytes = bytes - ?", (int(removed),))

    def _first_within_bytes(self, database: sqlite3.Connection) -> int:
        """The oldest position that `max_bytes` leaves room for; 0 when all fit; never beyond the newest record."""
        if self._settings.max_bytes is None:
            return 0
        excess = database.execute("SELECT bytes FROM totals").fetchone()[0] - self._settings.max_bytes
        first, newest = 0, _bounds(database)[1] - 1
        for position, size in database.execute("SELECT position, size FROM records ORDER BY position"):
            if excess <= 0 or position == newest:
                break
            first, excess = position + 1, excess - size
        return first


def _open(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection to the log, made when new; any thread may use it, one at a time. Errors: sqlite3.Error, OSError."""
    database = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if _found_version(database) == 0:
            _make_tables(database, time.monotonic() + timeout_s)
        database.execute("PRAGMA synchronous = FULL")
    except BaseException:
        database.close()
        raise
    return database


def _make_tables(database: sqlite3.Connection, until: float) -> None:
    _switch_to_wal(database, until)
    database.execute("BEGIN IMMEDIATE")
    if _found_version(database) == 0:  # nobody was quicker
        for statement in SCHEMA:
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {1 + secrets.randbelow(2**31 - 1)}")
    database.execute("COMMIT")


def _switch_to_wal(database: sqlite3.Connection, until: float) -> None:
    """SQLite does not wait for others here, so we do."""
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(LONGEST_S)


def _found_version(database: sqlite3.Connection) -> int:
    """Of the tables; 0 in an empty file. Errors: sqlite3.DatabaseError when they are of another program or version."""
    tables = database.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
    version: int = database.execute("PRAGMA user_version").fetchone()[0]  # after the tables: they come in one transaction
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"it was written by version {version}, this program reads {VERSION}: upgrade")
    if tables and version == 0:
        raise sqlite3.DatabaseError("it is an SQLite file of another program, expected a log of this one or no file")
    return version


def _bounds(database: sqlite3.Connection) -> tuple[int, int]:
    """Where the log begins, and one past its newest record."""
    first, last = database.execute("SELECT (SELECT MIN(position) FROM records), (SELECT MAX(position) FROM records)").fetchone()
    return (0, 0) if last is None else (first, last + 1)


def _has_key(database: sqlite3.Connection, key_: bytes | None) -> bool:
    return key_ is not None and database.execute("SELECT 1 FROM records WHERE key = ? LIMIT 1", (key_,)).fetchone() is not None


def _headers(packed: bytes | None) -> Headers:
    return () if packed is None else _HEADERS.decode(packed)


_HEADERS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])
