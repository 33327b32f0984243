"""Waiting for something that cannot call back: a file that grows."""

from collections.abc import Callable
from typing import TypeVar

SHORTEST_S, LONGEST_S = 0.001, 0.01  # between two looks; each costs some 10 µs, so that an idle source stays near zero

T = TypeVar("T")


def wait_for(
    look: Callable[[], list[T]], timeout_s: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> list[T]:
    """What `look` finds, at once or by looking again every 1 to 10 ms; empty after `timeout_s`."""
    until, pause_s = clock() + timeout_s, SHORTEST_S
    while not (found := look()):
        left_s = until - clock()
        if left_s <= 0:
            return []
        sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_S)
    return found
