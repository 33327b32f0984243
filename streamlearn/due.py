"""When something that is done now and then is due: clocks decide when it is done, never what it is."""

import time
from collections.abc import Callable


class Due:
    """Due once `every_s` seconds or `every_count` of a count have gone by since it was last done, and the count moved."""

    def __init__(self, *, every_s: float, every_count: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._every_count, self._clock = every_s, every_count, clock
        self._done_at, self._done_count = clock(), -1

    def at(self, count: int, *, idle: bool = False) -> bool:
        """Whether it is due; an idle loop does at once what is outstanding."""
        moved = count - self._done_count
        if moved == 0:
            return False
        by_count = self._every_count is not None and moved >= self._every_count
        return idle or by_count or self._clock() - self._done_at >= self._every_s

    def done(self, count: int) -> None:
        """It was done at this count."""
        self._done_at, self._done_count = self._clock(), count
