"""What every metric promises, whatever it measures."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.metrics import METRICS
from streamlearn.protocols import Metric
from streamlearn.records import State

EVERY = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def rows(seed, count):
    """Labels 0 to 29 that appear one by one, and logits that are -inf for those not met yet."""
    draw = np.random.default_rng(seed)
    labels = np.minimum(draw.integers(0, 30, count), np.arange(count) // 2)
    logits = (3 * draw.normal(size=(count, 40))).astype(np.float32)
    logits[np.arange(40)[None, :] > np.maximum.accumulate(labels)[:, None] - 1] = -np.inf
    return labels, logits


def feed(metric, labels, logits, cuts):
    """One call for each piece, with as many columns as it needs and no more."""
    for begin, end in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        width = int(np.isfinite(logits[begin:end]).any(0).sum())
        metric.update(labels[begin:end], logits[begin:end, :width])


def same(one: State, other: State) -> bool:
    """Equal, bit for bit."""
    arrays = one.arrays.keys() == other.arrays.keys() and all(
        a.dtype == other.arrays[name].dtype and a.tobytes() == other.arrays[name].tobytes() for name, a in one.arrays.items()
    )
    return arrays and json.dumps(one.values) == json.dumps(other.values)


def through_files(state: State) -> State:
    """As a checkpoint keeps it."""
    return State({k: v.copy() for k, v in state.arrays.items()}, json.loads(json.dumps(state.values, allow_nan=False)))


@EVERY
def test_is_honest_before_the_first_record(make):
    metric: Metric = make()
    assert all(math.isnan(value) for value in metric.values().values())


@EVERY
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 80), max_size=30).map(sorted))
def test_how_rows_are_grouped_into_calls_changes_no_bit(make, seed, cuts):
    labels, logits = rows(seed, 80)
    whole, pieces = make(), make()
    whole.update(labels, logits)
    feed(pieces, labels, logits, cuts)
    assert same(whole.state(), pieces.state())
    assert repr(whole.values()) == repr(pieces.values())


@EVERY
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), stop=st.integers(0, 3000))
def test_restored_goes_on_as_if_it_had_never_stopped(make, seed, stop):
    labels, logits = rows(seed, 3000)
    straight, first, second = make(), make(), make()
    straight.update(labels, logits)
    first.update(labels[:stop], logits[:stop])
    second.restore(through_files(first.state()))
    assert repr(second.values()) == repr(first.values())
    second.update(labels[stop:], logits[stop:])
    assert same(straight.state(), second.state())
    assert repr(straight.values()) == repr(second.values())


@EVERY
def test_a_state_is_a_copy(make):
    labels, logits = rows(0, 100)
    metric = make()
    metric.update(labels[:50], logits[:50])
    saved = metric.state()
    before = through_files(saved)
    metric.update(labels[50:], logits[50:])
    assert same(saved, before)


@EVERY
def test_reading_changes_nothing_and_rows_are_not_written_to(make):
    labels, logits = rows(0, 100)
    labels.setflags(write=False)
    logits.setflags(write=False)
    metric = make()
    metric.update(labels, logits)
    before = metric.state()
    assert repr(metric.values()) == repr(metric.values())
    assert same(before, metric.state())


@EVERY
def test_takes_no_rows_no_columns_and_labels_above_every_column(make):
    metric = make()
    metric.update(np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    metric.update(np.array([0, 5]), np.zeros((2, 0), np.float32))
    metric.update(np.array([9]), np.zeros((1, 2), np.float32))
    assert all(isinstance(value, float) for value in metric.values().values())


@EVERY
def test_state_does_not_grow_with_the_stream(make):
    metric = make()
    sizes = []
    for seed in range(4):
        metric.update(*rows(seed, 2000))
        state = metric.state()
        sizes.append(sum(array.nbytes for array in state.arrays.values()))
    assert sizes[1] == sizes[2] == sizes[3]
