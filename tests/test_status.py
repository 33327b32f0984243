"""`status.json`: curves that stay bounded, go on after a restart, and never show what was not restored."""

import contextlib
import json
import math

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, outcomes, started
from streamlearn.drift import Drift, Mark, Moved
from streamlearn.prefetch import Upstream
from streamlearn.prequential import Turn
from streamlearn.status import COLUMNS, History, Status, known, lags
from tests.test_prequential import stream


def added(history, counts):
    for count in counts:
        history.add(**dict.fromkeys(COLUMNS, float(count)) | {"learned": count})
    return history


@given(st.integers(0, 300), st.sampled_from([4, 8, 10]))
def test_a_curve_is_thinned_by_powers_of_two_evenly_from_its_beginning(n, points):
    columns = added(History(points), range(1, n + 1)).columns
    every = 1
    while n // every >= points:
        every *= 2
    assert columns["learned"] == list(range(every, n + 1, every))
    assert len({len(column) for column in columns.values()}) == 1


@given(st.lists(st.integers(0, 60), max_size=8))
def test_no_number_of_restarts_makes_a_curve_longer(lives):
    history, learned = History(10), 0
    for life in lives:
        added(history, range(learned + 1, learned + life + 1))
        learned += life
        before, history = history, History(10)
        history.restore(before.columns, learned=learned)
        assert len(history.columns["learned"]) < 10
        assert history.columns["learned"] == sorted(history.columns["learned"])


def test_what_a_crash_took_back_is_not_on_the_curve():
    history = History(100)
    history.restore(added(History(100), range(10, 60, 10)).columns, learned=30)
    assert history.columns["learned"] == [10, 20, 30]


@contextlib.contextmanager
def watched(folder, n, clock, bad=()):
    """A loop that has learned n records, and its status."""
    with started(folder, MemorySource({"a[0]": stream(n, bad=bad)}), every_records=20) as loop:
        drain(loop)
        yield Status(folder / "status.json", loop, {"name": "m", "learner": "order"}, clock_ms=lambda: clock[0])


def shown(folder):
    return json.loads((folder / "status.json").read_bytes())


MOVED = (("1", None, 0.75, 0.75), ("0", 0.5, 2.5, 4.0))


def test_a_drift_that_is_not_to_be_marked_is_not(tmp_path):
    drift = Drift.Settings(then={"on_error": ("alert",)})
    with started(tmp_path, MemorySource({"a[0]": stream(9)}), drift=drift) as loop:
        drain(loop)
        status = Status(tmp_path / "status.json", loop, {}, clock_ms=lambda: 0)
        status.saw(Turn(marks=(Mark(5, "adwin"), Mark(6, "adwin", "inputs"))))
        status.write(Upstream(), phase="running", kept=[])
    assert [mark["learned"] for mark in shown(tmp_path)["drift"]] == [6]


def test_it_shows_what_the_loop_holds(tmp_path):
    clock = [5_000]
    with watched(tmp_path, 50, clock, bad=(4,)) as status:
        status.saw(Turn(read=50, answered=48, measures={"update_norm": 0.5, "gradient_alignment": math.nan}))
        status.saw(Turn(measures={"update_norm": math.nan, "gradient_alignment": math.nan}))
        status.saw(Turn(marks=(Mark(17, "adwin", "error", (Moved(1, None, 0.75, 0.75),)),)))
        status.saw(Turn(marks=(Mark(20, "kswin", "inputs", (Moved(0, 0.5, 2.5, 4.0),)),)))
        clock[0] += 2_000
        status.write(Upstream(ok=True, message="", ends={"a[0]": 80, "b[0]": 3}, errors=2), phase="running", kept=["1-2"])
    seen = shown(tmp_path)
    assert seen["outcomes"] == outcomes(learned=48, rejected=1, skipped=0)
    assert (seen["pending"], seen["number"], seen["labels"]) == (1, 16, 2)
    assert seen["records_per_second"] == 25.0
    assert seen["lag"] == {"a[0]": 30, "b[0]": 3}
    assert seen["measures"] == {"update_norm": 0.5, "gradient_alignment": None}
    assert seen["memory"] == [["0", 2]]
    in_class, in_feature = (dict(zip(("name", "before", "now", "size"), each, strict=True)) for each in MOVED)
    assert seen["drift"] == [
        {"learned": 17, "detector": "adwin", "on": "error", "time_ms": 5000, "moved": [in_class]},
        {"learned": 20, "detector": "kswin", "on": "inputs", "time_ms": 5000, "moved": [in_feature]},
    ]
    assert seen["drift_counts"] == {"error": {"adwin": 0, "page_hinkley": 0, "surprise": 0}, "inputs": {"adwin": 0}}
    assert (seen["alerts"], seen["faster"], seen["kept"]) == ({"error": 0.0, "inputs": 0.0}, 1.0, ["1-2"])
    assert [name for name, *_ in seen["sets"]] == [0.9, 0.95]
    assert seen["source"] == {"ok": True, "message": "", "errors": 2}
    assert [letter["place"] for letter in seen["rejected"]] == ["a[0]@4"]
    assert (seen["phase"], seen["started_ms"], seen["updated_ms"]) == ("running", 5000, 7000)
    assert {name: len(column) for name, column in seen["history"].items()} == dict.fromkeys(COLUMNS, 1)
    assert seen["history"]["lag"] == [33]


def test_each_era_and_class_comes_with_its_best_and_when_that_was(tmp_path):
    with watched(tmp_path, 0, [0]) as status:
        probe = status._loop.probe
        probe.era_records, probe.records = 100, 250
        probe.matrix["auto"], probe.now["auto"] = [[0.5], [0.75, 0.5]], [0.25, 0.5, math.nan]
        probe.classes, probe.best = {0: 0.5, 1: 0.25}, {1: (0.75, 200)}
        status.write(Upstream(), phase="running", kept=[])
    seen = shown(tmp_path)
    assert (seen["eras"]["best"], seen["eras"]["best_at"]) == ([0.75, 0.5, None], [200, 200, None])
    assert seen["classes"] == [["1", 0.25, 0.75, 200], ["0", 0.5, None, None]]
    assert (seen["probe"]["worst_drop"], seen["probe"]["worst_best_age"]) == (0.5, 50)


def test_before_the_first_record_every_number_that_does_not_exist_is_null(tmp_path):
    with watched(tmp_path, 0, [0]) as status:
        status.write(Upstream(), phase="starting", kept=[])
    seen = shown(tmp_path)
    assert seen["accuracy"]["accuracy"] is None
    assert (seen["checkpoint"], seen["lag"], seen["number"]) == (None, {}, 0)
    assert seen["history"]["accuracy"] == [None]


def test_the_next_process_goes_on_with_the_curves_up_to_what_was_restored(tmp_path):
    clock = [0]
    with watched(tmp_path, 45, clock) as status:
        status.saw(Turn(marks=(Mark(12, "adwin"), Mark(44, "adwin"))))
        for clock[0] in (1000, 2000):
            status.write(Upstream(), phase="running", kept=[])
    seen = shown(tmp_path)
    seen["history"]["learned"][0] = 20
    (tmp_path / "status.json").write_text(json.dumps(seen))
    clock[0] = 9000
    with started(tmp_path, MemorySource({"a[0]": []}, endless=True)) as loop:
        assert 20 <= loop.tally.learned < 45, "it went back to a checkpoint"
        Status(tmp_path / "status.json", loop, {}, clock_ms=lambda: clock[0]).write(Upstream(), phase="running", kept=[])
        learned = loop.tally.learned
    again = shown(tmp_path)
    assert again["history"]["learned"] == [20, learned]
    assert again["history"]["time_ms"] == [1000, 9000]
    assert [mark["learned"] for mark in again["drift"]] == [12]


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b'{"history": {}, "drift": []}', b'{"history": 5', b"\xff"])
def test_a_file_that_cannot_be_read_begins_the_curves_anew_and_says_so(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    with structlog.testing.capture_logs() as said, watched(tmp_path, 10, [0]) as status:
        status.write(Upstream(), phase="running", kept=[])
    assert [event["event"] for event in said if event["event"].startswith("status")] == ["status.unreadable"]
    assert shown(tmp_path)["history"]["learned"] == [9]


def test_lag_is_never_negative_and_unknown_ends_are_no_lag():
    assert lags({"a[0]": 10, "b[0]": 4}, {"a[0]": 3, "b[0]": 6}) == {"a[0]": 7, "b[0]": 0}
    assert lags(None, {"a[0]": 3}) == {}


@given(st.floats())
def test_json_gets_a_number_or_null(value):
    assert json.loads(json.dumps(known(value), allow_nan=False)) == (value if math.isfinite(value) else None)
