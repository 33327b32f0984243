"""What every detector promises, whatever its test."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.drift import DETECTORS
from streamlearn.protocols import Detector
from streamlearn.records import State

EVERY = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


def values(seed, changes, each=1500):
    """0/1 values whose mean jumps `changes` times."""
    draw = np.random.default_rng(seed)
    rates = [0.1, 0.7] * (changes // 2 + 1)
    return np.concatenate([draw.random(each) < rate for rate in rates[: changes + 1]]).astype(float).tolist()


def detections(detector, stream):
    return [i for i, value in enumerate(stream) if detector.update(value)]


def through_files(state: State) -> State:
    """As a checkpoint keeps it."""
    return State({k: v.copy() for k, v in state.arrays.items()}, json.loads(json.dumps(state.values, allow_nan=False)))


def same(one: State, other: State) -> bool:
    """Equal, bit for bit."""
    arrays = one.arrays.keys() == other.arrays.keys() and all(
        a.dtype == other.arrays[name].dtype and a.tobytes() == other.arrays[name].tobytes() for name, a in one.arrays.items()
    )
    return arrays and json.dumps(one.values) == json.dumps(other.values)


@EVERY
def test_finds_a_jump_and_nothing_before_it(make):
    detector: Detector = make()
    found = detections(detector, values(0, 1))
    assert found
    assert all(1500 <= i < 2000 for i in found)


@EVERY
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), stop=st.integers(0, 7500))
def test_restored_goes_on_as_if_it_had_never_stopped(make, seed, stop):
    stream = values(seed, 4)
    straight, first, second = make(), make(), make()
    expected = detections(straight, stream)
    found = detections(first, stream[:stop])
    second.restore(through_files(first.state()))
    found += [stop + i for i in detections(second, stream[stop:])]
    assert found == expected
    assert len(expected) >= 2
    assert same(straight.state(), second.state())


def straight_at(make, stream):
    """The state after `stream`."""
    detector = make()
    detections(detector, stream)
    return detector.state()


@EVERY
def test_restores_in_the_very_moment_of_a_detection(make):
    stream = values(0, 4)
    straight, first, second = make(), make(), make()
    expected = detections(straight, stream)
    assert detections(first, stream[: expected[0] + 1]) == [expected[0]]
    second.restore(through_files(first.state()))
    first.update(0.0)
    second.update(0.0)
    assert same(first.state(), second.state())
    second.restore(through_files(straight_at(make, stream[: expected[0] + 1])))
    assert [expected[0] + 1 + i for i in detections(second, stream[expected[0] + 1 :])] == expected[1:]


@EVERY
def test_a_state_is_a_copy(make):
    detector = make()
    detections(detector, values(0, 1))
    saved = detector.state()
    before = through_files(saved)
    detections(detector, values(1, 1))
    assert same(saved, before)


@EVERY
def test_saving_changes_nothing(make):
    stream = values(0, 4)
    saved_often, never = make(), make()
    found = []
    for i, value in enumerate(stream):
        if i % 50 == 0:
            saved_often.state()
        if saved_often.update(value):
            found.append(i)
    assert found == detections(never, stream)


@EVERY
def test_state_stays_small_over_a_long_stream(make):
    detector = make()
    detections(detector, [0.0] * 50_000)
    state = detector.state()
    assert sum(array.nbytes for array in state.arrays.values()) + len(json.dumps(state.values)) < 10_000
