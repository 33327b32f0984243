"""Visits to contexts: how soon one is learned, and learned again; against a slow obvious version that looks at whole visits."""

import math
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.testbed.loops import loop_on
from streamlearn.contexts import FIRST, LAST, LEAST, MOST, NEAR, Contexts
from streamlearn.due import Due
from streamlearn.metrics import Answers
from streamlearn.prequential import Turn
from streamlearn.records import Batch


def answers(labels, guesses):
    return Answers(list(labels), list(guesses), [0.0] * len(labels))


def fed(contexts, labels, guesses, pieces=1):
    found = Contexts()
    for part in np.array_split(np.arange(len(labels)), pieces):
        found.update(np.array([contexts[i] for i in part]), answers([labels[i] for i in part], [guesses[i] for i in part]))
    return found


def visit(context, right, rows, label=0):
    """`rows` rows of a context, of which those at `right` are answered right."""
    return [(context, label, label if i in right else label + 1) for i in range(rows)]


def columns(*visits):
    return list(zip(*[row for each in visits for row in each], strict=True))


def obvious(rows):
    """The same figures from whole visits: a list of (context, label, guess)."""
    known, bests, regained, reached, given_up, visits, forward, seen = set(), [], math.nan, math.nan, 0, 0, [], []
    stretches = [(context, list(group)) for context, group in groupby(rows, key=lambda row: row[0])]
    for number, (context, stretch) in enumerate(stretches):
        if context < 0:
            continue
        visits += 1
        is_new, hits = context not in known, [guess == label for _, label, guess in stretch]
        known.add(context)
        goals = [value for at, value in bests if value > 0 and (is_new or at == context)]
        goal = NEAR * max(goals, default=math.nan)
        if is_new and seen and len(hits) >= FIRST:
            usual = max(sorted(set(seen)), key=seen.count)
            forward.append(np.mean(hits[:FIRST]) - np.mean([label == usual for _, label, _ in stretch[:FIRST]]))
        near = [n for n in range(LEAST, len(hits) + 1) if np.mean(hits[max(0, n - LAST) : n]) >= goal]
        if near and is_new:
            reached = near[0]
        elif near:
            regained = near[0]
        elif not math.isnan(goal) and number < len(stretches) - 1:
            given_up += 1
        bests += [(context, np.mean(hits[n - LAST : n])) for n in range(LAST, len(hits) + 1)]
        seen += [label for _, label, _ in stretch]
    transfer = np.mean(forward) if forward else math.nan
    return {"contexts": len(known), "visits": visits, "given_up": given_up, "regained": regained, "reached": reached,
            "forward_transfer": transfer}  # fmt: skip


STRETCH = st.tuples(
    st.integers(-1, 3), st.integers(1, 70), st.integers(0, 3), st.floats(0, 1), st.randoms(use_true_random=False)
)


@given(st.lists(STRETCH, min_size=1, max_size=8), st.integers(1, 5))
def test_figures_are_those_of_whole_visits_however_rows_come(stretches, pieces):
    rows = [
        (context, label, label if draws.random() < share else label + 1)
        for context, length, label, share, draws in stretches
        for _ in range(length)
    ]
    found = fed(*zip(*rows, strict=True), pieces=pieces).values()
    assert found == pytest.approx(obvious(rows), nan_ok=True)


def test_a_return_takes_as_many_records_as_it_takes_to_be_nearly_as_good_again():
    learned = visit(5, range(60), 60)
    away = visit(6, range(60), 60)
    back = visit(5, range(30, 200), 200)  # the first 30 wrong, then all right: 45 of the last 50 at the 75th
    assert fed(*columns(learned, away, back)).values()["regained"] == 75


def test_a_new_context_is_measured_against_the_best_of_all_and_by_its_first_answers():
    known = visit(0, range(60), 60)
    new = visit(1, range(5, 200), 200, label=3)
    found = fed(*columns(known, new)).values()
    assert found["reached"] == 50, "45 of 50"
    assert found["forward_transfer"] == pytest.approx(15 / 20), "the label that was usual comes no more"


def test_visits_too_short_for_a_best_are_no_goal_for_later_ones():
    """Figures by hand. No visit has the 50 rows that a best is taken over, so nobody can say when it is reached again."""
    short = [visit(context, range(30), 30) for context in (0, 1, 0, 1, 2)]
    found = fed(*columns(*short)).values()
    assert (found["contexts"], found["visits"], found["given_up"]) == (3, 5, 0)
    assert math.isnan(found["regained"])
    assert math.isnan(found["reached"])
    assert found["forward_transfer"] == 0.0, "all right, as the one label always is"


def test_short_visits_are_measured_against_the_bests_that_are_known():
    """Context 0 has a best, 1.0; context 1 never comes to have one."""
    long = visit(0, range(60), 60)
    one_long = fed(*columns(long, visit(1, range(30), 30))).values()
    assert one_long["reached"] == 10, "the best of all is known: nine tenths of it, after the least rows"
    back_to_short = fed(*columns(long, visit(1, range(30), 30), visit(0, range(5, 30), 30), visit(1, range(30), 30)))
    found = back_to_short.values()
    assert math.isnan(found["regained"]), "the return to 0 had 25 of 30, below nine tenths; that to 1 has no goal"
    assert found["given_up"] == 1, "the return to 0"
    again = fed(*columns(long, visit(1, range(30), 30), visit(0, range(5, 60), 60))).values()
    assert again["regained"] == 50, "45 of 50"


def test_what_was_never_answered_right_is_no_goal():
    wrong = visit(0, (), 60)
    found = fed(*columns(wrong, visit(1, range(30), 30), visit(0, range(30), 30))).values()
    assert math.isnan(found["reached"])
    assert math.isnan(found["regained"])
    assert found["given_up"] == 0


def test_records_without_a_context_are_no_visit_and_cost_nothing():
    found = fed([-1] * 10, [0] * 10, [0] * 10).values()
    assert (found["contexts"], found["visits"], math.isnan(found["regained"])) == (0, 0, True)


def test_the_number_of_contexts_is_bounded():
    found = Contexts()
    for context in range(MOST + 10):
        found.update(np.array([context]), answers([0], [0]))
    assert found.values()["contexts"] == MOST == len(found.best)


@given(st.lists(STRETCH, min_size=2, max_size=6), st.data())
def test_stopped_and_restored_is_never_stopped(stretches, data):
    rows = [(context, label, (label + i) % 2) for context, length, label, *_ in stretches for i in range(length)]
    cut = data.draw(st.integers(0, len(rows)))
    whole, first, second = Contexts(), Contexts(), Contexts()

    def feed(each, part):
        if part:
            contexts, labels, guesses = zip(*part, strict=True)
            each.update(np.array(contexts), answers(labels, guesses))

    feed(whole, rows)
    feed(first, rows[:cut])
    second.restore(first.state())
    feed(second, rows[cut:])
    for name, array in whole.state().arrays.items():
        np.testing.assert_array_equal(second.state().arrays[name], array)


def test_the_loop_counts_visits_and_its_checkpoint_remembers_them(tmp_path):
    loop = loop_on(tmp_path / "a", checkpoint_due=Due(every_s=1e9))
    contexts = np.repeat([4, 7, 4], 30)
    loop._learn(Batch.of(np.zeros((90, 1), np.float32), np.zeros(90, np.int64), contexts), Turn())
    assert (loop.contexts.visits, sorted(loop.contexts.best)) == (3, [4, 7])
    other = loop_on(tmp_path / "b", checkpoint_due=Due(every_s=1e9))
    other.restore(loop.checkpoint())
    assert other.contexts.values() == pytest.approx(loop.contexts.values(), nan_ok=True)
