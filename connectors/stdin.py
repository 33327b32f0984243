"""Standard input, one record a line. It cannot be read twice: what was read and is in no checkpoint is lost with the process.

Delivery is therefore at most once. After a restart the positions go on from the saved ones, whatever lines come then.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from streamlearn.errors import SourceError
from streamlearn.records import Gap, Positions, Record
from streamlearn.settings import Section, key

PIECE = 1 << 16


class StdinSource:
    """Reads lines until the end of input. Not seekable."""

    class Settings(Section):
        """Settings of the `stdin` source."""

        name: str = key("stdin", "name of the stream in partition names", min_length=1)
        max_line_bytes: int = key(16 << 20, "longer lines are cut here", unit="bytes", ge=1)

    def __init__(
        self, settings: Settings, *, descriptor: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._clock = settings, clock
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.partition = f"{settings.name}[0]"
        self._position = 0
        self._lines: list[bytes] = []
        self._rest = bytearray()  # of a line that is not complete yet
        self._ended = False

    def seek(self, positions: Positions) -> None:
        """Numbers go on from here; nothing is skipped."""
        self._position = positions.get(self.partition, 0)

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """Waits for input without using the processor. A paused input is not read, so that its writer waits."""
        until = self._clock() + timeout_s
        if self.partition in paused:
            select.select([], [], [], timeout_s)
            return []
        while not self._lines and not self._ended:
            left_s = max(0.0, until - self._clock())
            if not select.select([self._descriptor], [], [], left_s)[0]:
                return []
            self._take()
        taken, self._lines = self._lines[:max_records], self._lines[max_records:]
        records = [Record(self.partition, self._position + i, line) for i, line in enumerate(taken)]
        self._position += len(records)
        return records

    def positions(self) -> Positions:
        """The number of the next line."""
        return {self.partition: self._position}

    def ends(self) -> Positions:
        """What has arrived."""
        return {self.partition: self._position + len(self._lines)}

    def identities(self) -> Mapping[str, str]:
        """None: a pipe cannot be read again."""
        return {}

    def exhausted(self) -> bool:
        """True at the end of input."""
        return self._ended and not self._lines

    def gaps(self) -> list[Gap]:
        """Never any."""
        return []

    def commit(self, positions: Positions) -> None:
        """Nobody to tell."""

    def close(self) -> None:
        """Nothing to let go: standard input is the process's own."""

    def _take(self) -> None:
        """One piece of input, cut into lines."""
        try:
            piece = os.read(self._descriptor, PIECE)
        except OSError as error:
            raise SourceError(f"standard input cannot be read: {error.strerror}") from error
        self._ended = not piece
        *whole, rest = piece.split(b"\n")
        for line in whole:
            self._lines.append(bytes(self._rest + line)[: self._settings.max_line_bytes].rstrip(b"\r"))
            self._rest.clear()
        self._rest += rest[: self._settings.max_line_bytes - len(self._rest)]
        if self._ended and self._rest:
            self._lines.append(bytes(self._rest))
            self._rest.clear()
