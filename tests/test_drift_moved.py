"""What a detection names: which classes and features, in which order, by how much; all against values found by hand."""

from itertools import count

import numpy as np
import pytest

from streamlearn.drift import Drift, Features, Moved
from streamlearn.drift.classes import FADE
from streamlearn.records import State

HALF_WRONG = 1 / (1 + FADE)
"""Fading share of wrong answers where every second is, the last among them: (1 + f² + …) / (1 + f + f² + …)."""


class At:
    """A detector that fires at one row, counted from 1."""

    def __init__(self, row):
        self._row, self._rows = row, 0

    def update(self, value):
        self._rows += 1
        return self._rows == self._row

    def state(self):
        return State(values={"rows": self._rows})

    def restore(self, state):
        self._rows = state.values["rows"]


def told(before, after, *, most=5):
    """What a detection at the end names, where 2,000 rows were answered as `before` says and the newest 200 as `after` does.

    Of ten rows two are of class 0, three of class 1 and five of class 2; rules say of each class whether its k-th row is wrong.
    """
    labels = [0, 0, 1, 1, 1, 2, 2, 2, 2, 2] * 220
    numbers = {rules: [count(), count(), count()] for rules in (before, after)}
    rules = [before] * 2000 + [after] * 200
    errors = [float(rule[label](next(numbers[rule][label]))) for label, rule in zip(labels, rules, strict=True)]
    drift = Drift({"at": At(2200)}, Drift.Settings(recent_rows=200, most_moved=most))
    (mark,) = drift.update(errors, labels)
    return mark.moved


def never(k):
    return False


def always(k):
    return True


def every_second(k):
    return k % 2 == 1


def three_of_four(k):
    return k % 4 != 0


def about(*moved):
    return [
        Moved(which, pytest.approx(before, rel=1e-9), now, pytest.approx(size, rel=1e-9)) for which, before, now, size in moved
    ]


def test_of_two_classes_that_moved_the_one_with_more_new_wrong_answers_is_first_and_one_that_stayed_is_not_named():
    """Class 1: 60 rows, 45 of them wrong where none was. Class 0: 40 rows, 20 wrong. Class 2 is as wrong as it was."""
    moved = told((never, never, every_second), (every_second, three_of_four, every_second))
    assert list(moved) == about((1, 0.0, 0.75, 0.75), (0, 0.0, 0.5, 0.5))
    other = told((never, never, every_second), (always, every_second, every_second))
    assert list(other) == about((0, 0.0, 1.0, 1.0), (1, 0.0, 0.5, 0.5))


def test_answers_that_were_wrong_before_count_for_nothing_in_the_order():
    """Class 1: 60 wrong where 60 / (1 + f) were usual, 30 more. Class 0: 40 wrong where none was, and all of its rows."""
    moved = told((never, every_second, every_second), (always, always, every_second))
    assert list(moved) == about((0, 0.0, 1.0, 1.0), (1, HALF_WRONG, 1.0, 1.0 - HALF_WRONG))


def test_the_order_is_by_wrong_answers_beyond_the_usual_not_by_how_much_the_share_rose():
    """Class 1: 30 wrong answers more, a rise of 0.4995. Class 0: 20 more, a rise of 0.5 in fewer rows."""
    moved = told((never, every_second, never), (every_second, always, never))
    assert list(moved) == about((1, HALF_WRONG, 1.0, 1.0 - HALF_WRONG), (0, 0.0, 0.5, 0.5))


def test_a_class_that_got_better_is_not_named_and_no_more_are_than_asked_for():
    after = (every_second, three_of_four, never)
    assert [each.which for each in told((never, never, always), after)] == [1, 0]
    assert [each.which for each in told((never, never, always), after, most=1)] == [1]


def test_of_two_features_that_moved_the_one_further_in_its_own_deviations_is_first_and_one_that_stayed_is_not_named():
    """Each feature alternates by its deviation (2, 0.5, 64) around its mean (8, 16, 0), so both are exact in binary."""
    around = np.where(np.arange(6000) % 2, 1.0, -1.0)[:, None] * [2.0, 0.5, 64.0] + [8.0, 16.0, 0.0]
    around[4000:] += [4.0, -1.5, 0.0]  # by 2 deviations up, by 3 down, not at all
    settings = Drift.Settings(detectors=(), inputs={"detectors": ["page_hinkley"]}, recent_rows=20)
    (mark, *_) = Drift.of(settings, Features((3,))).update([0.0] * 6000, x=around.astype(np.float32))
    assert mark.row > 4000
    assert list(mark.moved) == [Moved(1, 16.0, 14.5, -3.0), Moved(0, 8.0, 12.0, 2.0)]
