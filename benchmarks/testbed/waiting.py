"""For what happens in another process, and can be waited for only by asking again."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 20.0


def until(claim: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S, every_s: float = 0.01) -> T:
    """What `claim` returns once it is true. Errors: AssertionError where that takes longer than `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while not (found := claim()):
        assert time.monotonic() < deadline, f"{what} did not happen within {deadline_s:g} s"
        time.sleep(every_s)
    return found
