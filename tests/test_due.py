"""When checkpoints and snapshots are due, told with a clock that stands in a variable."""

import pytest

from streamlearn.due import Due


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_due_while_the_count_stands_still():
    clock = Clock()
    due = Due(every_s=1.0, every_count=1, clock=clock)
    due.done(7)
    clock.now += 1000
    assert not due.at(7)
    assert not due.at(7, idle=True)


@pytest.mark.parametrize(("count", "seconds", "expected"), [(9, 0.0, False), (10, 0.0, True), (1, 4.9, False), (1, 5.0, True)])
def test_it_is_due_after_so_many_or_so_long_whichever_comes_first(count, seconds, expected):
    clock = Clock()
    due = Due(every_s=5.0, every_count=10, clock=clock)
    due.done(50)
    clock.now += seconds
    assert due.at(50 + count) is expected


def test_an_idle_loop_does_at_once_what_is_outstanding():
    due = Due(every_s=5.0, clock=Clock())
    due.done(3)
    assert not due.at(4)
    assert due.at(4, idle=True)


def test_time_counts_from_when_it_was_done_and_not_from_when_it_was_due():
    clock = Clock()
    due = Due(every_s=5.0, clock=clock)
    clock.now += 8
    assert due.at(1)
    due.done(1)
    clock.now += 4.5
    assert not due.at(2)
    clock.now += 0.5
    assert due.at(2)


def test_a_count_that_went_back_has_moved():
    """After a rollback the number may be lower: what is served has changed all the same."""
    due = Due(every_s=5.0, clock=Clock())
    due.done(9)
    assert due.at(4, idle=True)
