"""Detections against river itself, and what stands around it: warm-up, refractory time, marks."""

import json

import numpy as np
import pytest
from river import drift as river_drift

from streamlearn.drift import DETECTORS, Adwin, Drift, Kswin, Mark, PageHinkley, PatientDetector
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.records import State
from streamlearn.settings import read

ADWIN = {"delta": 0.01, "clock": 8}
"""Defaults of ours that differ from river's."""
QUIET = {"warm_up": 0, "refractory": 0, "rises_only": False}


def errors(rates, *, each=2000, seed=0):
    """0/1 errors whose rate jumps."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.random(each) < rate for rate in rates]).astype(float).tolist()


def detections(detector, values):
    return [i for i, value in enumerate(values) if detector.update(value)]


def river_detections(detector, values):
    """Indices, and whether the window's mean rose."""
    found = []
    for i, value in enumerate(values):
        before = getattr(detector, "estimation", 0.0)
        detector.update(value)
        if detector.drift_detected:
            found.append((i, getattr(detector, "estimation", 0.0) > before))
    return found


STREAM = errors([0.1, 0.6, 0.2, 0.7, 0.1, 0.5])


def test_adwin_detects_where_river_does():
    expected = [i for i, _ in river_detections(river_drift.ADWIN(**ADWIN), STREAM)]
    assert len(expected) >= 5
    assert detections(Adwin(Adwin.Settings(**QUIET)), STREAM) == expected


def test_page_hinkley_detects_where_river_does():
    expected = [i for i, _ in river_detections(river_drift.PageHinkley(), STREAM)]
    assert len(expected) >= 3
    assert detections(PageHinkley(PageHinkley.Settings(**QUIET)), STREAM) == expected


def test_kswin_detects_where_river_does_when_it_tests_at_every_value():
    values = np.concatenate([np.random.default_rng(i).normal(mean, 1.0, 400) for i, mean in enumerate((0, 2, 1, 3))]).tolist()
    expected = [i for i, _ in river_detections(river_drift.KSWIN(alpha=0.001, window_size=80, stat_size=30, seed=0), values)]
    assert len(expected) >= 3
    settings = Kswin.Settings(**QUIET, alpha=0.001, window_size=80, stat_size=30, every=1)
    assert detections(Kswin(settings), values) == expected
    seldom = detections(Kswin(settings.model_copy(update={"every": 10})), values)
    assert len(seldom) >= 3
    assert len(seldom) <= len(expected)


def test_kswin_wants_older_values_to_compare_with():
    with pytest.raises(ConfigError, match="window_size is 50: expected twice stat_size = 30 or more"):
        read(Kswin.Settings, {"window_size": 50, "stat_size": 30}, path="drift.kswin")


@pytest.mark.parametrize("delta", [0.3, 1e-9])
def test_settings_reach_river(delta):
    """Both detectors know a `delta`; its meaning differs."""
    adwin = [i for i, _ in river_detections(river_drift.ADWIN(delta=delta, clock=7), STREAM)]
    assert detections(Adwin(Adwin.Settings(**QUIET, delta=delta, clock=7)), STREAM) == adwin
    page_hinkley = [i for i, _ in river_detections(river_drift.PageHinkley(delta=delta, threshold=20), STREAM)]
    assert detections(PageHinkley(PageHinkley.Settings(**QUIET, delta=delta, threshold=20)), STREAM) == page_hinkley


def test_rises_only_keeps_what_grew():
    rising = {**QUIET, "rises_only": True}
    expected = [i for i, rose in river_detections(river_drift.ADWIN(**ADWIN), STREAM) if rose]
    assert detections(Adwin(Adwin.Settings(**rising)), STREAM) == expected
    up = [i for i, _ in river_detections(river_drift.PageHinkley(mode="up"), STREAM)]
    assert detections(PageHinkley(PageHinkley.Settings(**rising)), STREAM) == up
    assert detections(Adwin(Adwin.Settings(**rising)), errors([0.9, 0.5, 0.1])) == []


@pytest.mark.parametrize("warm_up", [1, 1999, 3000])
def test_warm_up_rows_are_not_seen(warm_up):
    expected = [warm_up + i for i, _ in river_detections(river_drift.ADWIN(**ADWIN), STREAM[warm_up:])]
    settings = Adwin.Settings(warm_up=warm_up, refractory=0, rises_only=False)
    assert detections(Adwin(settings), STREAM) == expected


@pytest.mark.parametrize("refractory", [10, 2500, 10**6])
def test_within_the_refractory_time_of_a_report_there_is_no_other(refractory):
    expected: list[int] = []
    for i, _ in river_detections(river_drift.ADWIN(**ADWIN), STREAM):
        if not expected or i - expected[-1] > refractory:
            expected.append(i)
    settings = Adwin.Settings(warm_up=0, refractory=refractory, rises_only=False)
    assert detections(Adwin(settings), STREAM) == expected


class Nervous(PatientDetector):
    """Sees a change at every value."""

    def __init__(self, settings):
        self.settings = settings
        super().__init__()

    def _begin(self):
        pass

    def _changed(self, value):
        return True

    def _inner_state(self):
        return State()

    def _become(self, state):
        pass


def test_rows_are_counted_from_one_report_to_the_next():
    detector = Nervous(Adwin.Settings(warm_up=2, refractory=3))
    assert detections(detector, [0.0] * 12) == [2, 6, 10]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_state_of_other_settings_begins_anew(name):
    make, changed = DETECTORS[name], {"alpha" if name == "kswin" else "delta": 0.1}
    old, new = make(make.Settings(**QUIET)), make(make.Settings(**QUIET, **changed))
    detections(old, STREAM[:3000])
    new.restore(old.state())
    fresh = make(make.Settings(**QUIET, **changed))
    assert detections(new, STREAM[3000:]) == detections(fresh, STREAM[3000:])


def test_a_window_that_river_does_not_take_back_is_refused():
    adwin = Adwin()
    saved = adwin.state()
    longer = np.append(saved.arrays["window"], np.uint8(7))
    with pytest.raises(CheckpointError, match="does not take back its window"):
        adwin.restore(State({"window": longer}, saved.values))


def test_drift_marks_rows_counted_over_the_whole_stream():
    drift = Drift({"adwin": Adwin(Adwin.Settings(**QUIET)), "page_hinkley": PageHinkley(PageHinkley.Settings(**QUIET))})
    found = [mark for i in range(0, len(STREAM), 37) for mark in drift.update(STREAM[i : i + 37])]
    by_name = {
        "adwin": [i + 1 for i, _ in river_detections(river_drift.ADWIN(**ADWIN), STREAM)],
        "page_hinkley": [i + 1 for i, _ in river_detections(river_drift.PageHinkley(), STREAM)],
    }
    for name, expected in by_name.items():
        assert [mark.row for mark in found if mark.detector == name] == expected
        assert drift.counts[name] == len(expected)
    assert list(drift.marks) == sorted(found, key=lambda mark: mark.row)
    assert drift.rows == len(STREAM)


def test_only_the_newest_marks_are_kept_while_all_are_counted():
    drift = Drift({"adwin": Adwin(Adwin.Settings(**QUIET))}, Drift.Settings(max_marks=2))
    found = drift.update(STREAM)
    assert len(found) > 2
    assert drift.marks == found[-2:]
    assert drift.counts == {"adwin": len(found)}


def test_answers_that_are_still_right_and_no_longer_sure_are_a_surprise_and_no_error():
    draw = np.random.default_rng(0)
    surprises = np.concatenate([draw.beta(1, 19, 2000), draw.beta(1, 4, 1000)]).tolist()
    drift = Drift.of(Drift.Settings())
    marks = drift.update([0.0] * 3000, surprises=surprises)
    assert [(mark.detector, mark.on) for mark in marks] == [("surprise", "error")]
    assert 2000 < marks[0].row < 2200
    expected = [500 + i for i, rose in river_detections(river_drift.ADWIN(**ADWIN), surprises[500:]) if rose]
    assert marks[0].row - 1 == expected[0]
    assert drift.counts == {"adwin": 0, "page_hinkley": 0, "surprise": 1}


def test_settings_of_the_surprise_are_its_own():
    surprises = errors([0.1, 0.6])
    late = Drift.of(Drift.Settings(detectors=("surprise",), surprise={"warm_up": 1000, "delta": 1e-9}))
    soon = Drift.of(Drift.Settings(detectors=("surprise",), adwin={"warm_up": 1000, "delta": 1e-9}))
    rows = [drift.update([0.0] * 4000, surprises=surprises)[0].row for drift in (soon, late)]
    assert 2000 < rows[0] < rows[1]


def test_no_detector_may_be_configured():
    drift = Drift.of(Drift.Settings(detectors=()))
    assert drift.update(STREAM[:10]) == ()
    assert (drift.rows, drift.counts) == (10, {})


@pytest.mark.parametrize("stop", [0, 499, 501, 2050, 2110, 7000])
def test_a_restored_bundle_goes_on_as_if_it_had_never_stopped(stop):
    settings = Drift.Settings(adwin={"rises_only": False}, page_hinkley={"rises_only": False})
    straight, first, second = (Drift.of(settings) for _ in range(3))
    straight.update(STREAM)
    first.update(STREAM[:stop])
    saved = first.state()
    second.restore(State(saved.arrays, json.loads(json.dumps(saved.values, allow_nan=False))))
    assert second.marks == first.marks
    second.update(STREAM[stop:])
    assert second.marks == straight.marks
    assert len(straight.marks) >= 6
    assert all(isinstance(mark, Mark) for mark in second.marks)
    assert json.dumps(second.state().values) == json.dumps(straight.state().values)
    for name, array in straight.state().arrays.items():
        assert array.tobytes() == second.state().arrays[name].tobytes()


def test_a_detector_configured_since_the_checkpoint_begins_with_its_warm_up():
    one = Drift.of(Drift.Settings(detectors=("adwin",)))
    one.update(STREAM[:1000])
    both = Drift.of(Drift.Settings())
    both.restore(one.state())
    fresh = PageHinkley()
    expected = [1001 + i for i in detections(fresh, STREAM[1000:])]
    assert [mark.row for mark in both.update(STREAM[1000:]) if mark.detector == "page_hinkley"] == expected


def test_a_state_of_another_program_is_refused():
    with pytest.raises(CheckpointError, match="drift: the checkpoint lacks 'rows'"):
        Drift.of(Drift.Settings()).restore(State())
