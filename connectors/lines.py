"""Lines of a file by number, in bounded memory: a line longer than the bound is cut there, for decoding to refuse."""

import os
from collections.abc import Iterator
from pathlib import Path

from streamlearn.errors import PositionLostError

BLOCK = 1 << 20
POLL_BYTES = 8 << 20  # after which one read returns


class Lines:
    """The lines of a file after the first `skip`. With `open_end`, what follows the last line break is a line too."""

    def __init__(self, path: Path, *, skip: int, max_bytes: int, open_end: bool) -> None:
        """Errors: OSError."""
        self._path, self._skip, self._max, self._open_end = path, skip, max_bytes, open_end
        self._file = path.open("rb")
        self._at = 0  # byte where the next read begins
        self._to_skip = skip
        self._counted = self._scanned = 0  # lines and bytes that `count` has seen
        self._ends_open = False

    def seek(self, line: int) -> bool:
        """The next line read has this number. False when the file has fewer lines before it. Errors: OSError."""
        at = 0 if line == 0 else self._start_of(line + self._skip)
        self._at, self._to_skip = at or 0, 0 if line else self._skip
        return at is not None

    def read(self, n: int) -> list[bytes]:
        """Up to n lines, without their line breaks. Errors: OSError, PositionLostError."""
        if os.fstat(self._file.fileno()).st_size < self._at:
            raise PositionLostError(f"{self._path} became shorter than what was read of it: it was cut while it was followed")
        self._file.seek(self._at)
        lines: list[bytes] = []
        room = POLL_BYTES
        while len(lines) < n and room > 0:
            line, length = self._line()
            if not length:
                break
            self._at, room = self._at + length, room - len(line)
            if self._to_skip:
                self._to_skip -= 1
            else:
                lines.append(line.rstrip(b"\r\n"))
        return lines

    def count(self) -> int:
        """Lines in the file now; looks only at what was added since the last call. Errors: OSError."""
        for block in self._blocks(self._scanned):
            self._counted += block.count(b"\n")
            self._scanned += len(block)
            self._ends_open = not block.endswith(b"\n")
        return max(0, self._counted + (self._open_end and self._ends_open) - self._skip)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _line(self) -> tuple[bytes, int]:
        """A line, cut at the bound, and its length in the file; length 0 when there is none, or none that is complete."""
        line = piece = self._file.readline(self._max)
        length = len(piece)
        while piece and not piece.endswith(b"\n"):
            piece = self._file.readline(BLOCK)
            length += len(piece)
        complete = piece.endswith(b"\n") or self._open_end
        return (line, length) if complete else (b"", 0)

    def _start_of(self, line: int) -> int | None:
        """The byte at which a line begins, or would begin behind the last one."""
        at, left, block = 0, line, b""
        for block in self._blocks(0):
            found = block.count(b"\n")
            if found >= left:
                return at + _after(block, left)
            at, left = at + len(block), left - found
        return at if left == 1 and self._open_end and block and not block.endswith(b"\n") else None

    def _blocks(self, at: int) -> Iterator[bytes]:
        self._file.seek(at)
        while block := self._file.read(BLOCK):
            yield block


def _after(block: bytes, nth: int) -> int:
    """The place after the nth line break."""
    at = 0
    for _ in range(nth):
        at = block.index(b"\n", at) + 1
    return at
