"""For what happens in another process, and can be waited for only by asking again."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 20.0


def until(claim: Callable[[], T], what: str) -> T:
    """What `claim` returns once it is true. Errors: AssertionError where that takes longer than `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := claim()):
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.01)
    return found
