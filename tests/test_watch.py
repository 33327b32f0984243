"""What /metrics says is what the loop did: every record has one outcome there too (P1)."""

import json
import math
import shutil

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.testbed.fakes import MemorySource, PairDecoder
from benchmarks.testbed.loops import drain, started
from benchmarks.testbed.loops import outcomes as all_outcomes
from benchmarks.testbed.numbered import numbered
from streamlearn.drift import Mark, Moved
from streamlearn.follower_files import FollowerFiles
from streamlearn.prefetch import Intake, Prefetch, Upstream
from streamlearn.prequential import Turn
from streamlearn.scrape import Info, Telemetry
from streamlearn.snapshot import FilePublisher
from streamlearn.status import Status
from streamlearn.watch import LoopWatch, Servers
from tests.test_prequential import stream


def watch_of(loop, folder, *, upstream=None, servers=None, folders=None):
    """A watch on a loop, and the telemetry that it feeds."""
    reading = Prefetch(lambda: MemorySource({}), PairDecoder(), Intake(max_records=1, max_bytes=1), shape=(1,), positions={})
    reading.upstream = upstream or Upstream()
    telemetry = Telemetry(Info(name="m"), version="1", followers=FollowerFiles(None))
    status = Status(folder / "status.json", loop, {"name": "m"}, clock_ms=lambda: 0)
    return LoopWatch(
        loop, reading, status=status, telemetry=telemetry, servers=servers or Servers(), folders=folders or {}
    ), telemetry


def scraped(telemetry):
    """`name` or `name{value}` → number."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}" if sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(telemetry.text())
        for sample in family.samples
    }


def test_the_outcomes_and_what_waits_add_up_to_the_records_read(tmp_path):
    values = stream(50, bad=(4, 5, 30))
    values[20] = b"[1e9, 0]"  # its update is not finite
    with started(tmp_path, MemorySource({"a[0]": values})) as loop:
        watch, telemetry = watch_of(loop, tmp_path)
        while not loop.intake.drained:
            watch.saw(loop.turn(1.0))
        watch.report("running")
        seen = scraped(telemetry)
    outcomes = {name: seen[f"streamlearn_records_total{{{name}}}"] for name in ("learned", "rejected", "skipped")}
    assert outcomes == {"learned": 42.0, "rejected": 6.0, "skipped": 0.0}
    assert seen["streamlearn_pending_records{chunk}"] == 2.0
    assert sum(outcomes.values()) + seen["streamlearn_pending_records{chunk}"] == 50
    assert seen["streamlearn_rejected_records_total{decode}"] == 3.0
    assert seen["streamlearn_rejected_records_total{not_finite}"] == 3.0
    assert seen["streamlearn_dead_letters_total"] == 3.0
    assert json.loads((tmp_path / "status.json").read_bytes())["outcomes"] == all_outcomes(
        **{name: int(value) for name, value in outcomes.items()}
    )


def test_pauses_measures_marks_and_lag_are_shown(tmp_path):
    with started(tmp_path, MemorySource({"a[0]": stream(30)})) as loop:
        upstream = Upstream(ok=True, message="", ends={"a[0]": 33}, errors=4, commit_errors=3)
        watch, telemetry = watch_of(loop, tmp_path, upstream=upstream)
        watch.saw(Turn(read=30, answered=30, learn_s=0.02, event_ms=1000, measures={"gradient_alignment": 0.25}))
        loop.drift.marks = (
            Mark(7, "adwin", "error", (Moved(1, 0.25, 0.75, 0.5),)),
            Mark(8, "kswin", "inputs", (Moved(0, 1, 3, 2.0),)),
        )
        watch.saw(Turn(marks=loop.drift.marks))
        drain(loop)
        loop.begin_checkpoint()
        loop.writer.wait()
        watch.report("running")
        seen = scraped(telemetry)
    assert seen["streamlearn_drift_class_error_rise_ratio{1}"] == 0.5
    assert seen["streamlearn_drift_feature_shift{0}"] == 2.0
    assert seen["streamlearn_drift_timestamp_seconds{adwin}"] > 1e9
    assert seen["streamlearn_drift_alert{error}"] == 0.0
    assert seen["streamlearn_input_drift_detections_total{adwin}"] == 0.0
    assert seen["streamlearn_learn_seconds_count"] == 1.0
    assert seen["streamlearn_learn_seconds_sum"] == 0.02
    assert seen["streamlearn_gradient_alignment"] == 0.25
    assert seen["streamlearn_checkpoint_seconds_count"] >= 1.0
    assert seen["streamlearn_checkpoint_number"] == loop.tally.number
    assert seen["streamlearn_lag_records{a[0]}"] == 3.0
    assert seen["streamlearn_lag_seconds"] > 0
    assert seen["streamlearn_source_up"] == 1.0
    assert seen["streamlearn_source_errors_total"] == 4.0
    assert seen["streamlearn_commit_errors_total"] == 3.0


def test_kept_checkpoints_are_looked_up_once_for_page_and_metrics(tmp_path, monkeypatch):
    with started(tmp_path, MemorySource({"a[0]": stream(30)})) as loop:
        watch, telemetry = watch_of(loop, tmp_path)
        drain(loop)
        loop.writer.wait()
        kept = loop.writer.store.keep_newest(1)
        found = [["never seen"], loop.writer.store.kept()]
        monkeypatch.setattr(loop.writer.store, "kept", found.pop)
        watch.report("running")
        seen = scraped(telemetry)
    assert seen["streamlearn_kept_checkpoints"] == 1.0
    assert json.loads((tmp_path / "status.json").read_bytes())["kept"] == [kept]


def test_a_status_that_cannot_be_written_is_said_and_stops_nothing(tmp_path):
    with started(tmp_path, MemorySource({"a[0]": stream(9)})) as loop:
        watch, telemetry = watch_of(loop, tmp_path)
        drain(loop)
        (tmp_path / "status.json").mkdir()
        with structlog.testing.capture_logs() as said:
            watch.report("running")
        assert [event["event"] for event in said] == ["status.not_written"]
        assert scraped(telemetry)["streamlearn_records_total{learned}"] == 9.0


def test_what_the_disk_refuses_is_counted_by_what_was_written_and_its_room_is_shown(tmp_path):
    with started(tmp_path, MemorySource({"a[0]": stream(9)})) as loop:
        watch, telemetry = watch_of(loop, tmp_path, folders={"state": tmp_path, "publish": tmp_path / "gone"})
        drain(loop)
        for turn in (Turn(refused=True), Turn(), Turn(refused=True)):
            watch.saw(turn)
        loop.publisher = FilePublisher(tmp_path / "live")
        loop.begin_checkpoint()
        loop.writer.wait()
        (folder := loop.writer.store.folder).rename(tmp_path / "away")
        folder.touch()
        loop.begin_checkpoint()
        loop.writer.wait()
        (tmp_path / "live").rmdir()
        loop.publisher.publish(numbered(1))
        (tmp_path / "status.json").mkdir()
        watch.report("running")
        watch.report("running")
        seen, free = scraped(telemetry), shutil.disk_usage(tmp_path).free
    counted = {write: seen[f"streamlearn_disk_refusals_total{{{write}}}"] for write in ("journal", "checkpoint", "status")}
    assert counted == {"journal": 2, "checkpoint": 1, "status": 1}, "the second status was shown before it was refused"
    assert seen["streamlearn_disk_refusals_total{snapshot}"] >= 1
    assert seen["streamlearn_disk_free_bytes{state}"] == pytest.approx(free, rel=0.1)
    assert math.isnan(seen["streamlearn_disk_free_bytes{publish}"])


def test_a_server_in_this_process_tells_where_a_follower_would(tmp_path):
    path = tmp_path / "follower-0.json"
    with started(tmp_path, MemorySource({"a[0]": stream(3)})) as loop:
        watch, _ = watch_of(loop, tmp_path, servers=Servers(counts=lambda: {"rows": 5}, counts_path=path))
        watch.report("running")
    assert json.loads(path.read_bytes()) == {"rows": 5}
