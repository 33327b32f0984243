"""The metrics page: every series there, every number where it belongs, nothing without bound."""

import json
import math
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamlearn import follower_files
from streamlearn.errors import ConfigError
from streamlearn.follower_files import FollowerFiles
from streamlearn.reading import Reading
from streamlearn.scrape import Info, Telemetry
from streamlearn.serving import counts
from streamlearn.telemetry import CODES, OUTCOMES, REASONS, ROWS, reference

ROOT = Path(__file__).parents[1]

FULL = Reading(
    outcomes={
        "learned": 1,
        "probe": 65,
        "rejected": 2,
        "skipped": 3,
        "expired": 50,
        "joined": 51,
        "unmatched": 52,
        "duplicate": 53,
    },
    rejected={"decode": 4, "admit": 5, "learn": 6, "not_finite": 7},
    read_records=8,
    turns=9,
    pending={"chunk": 10, "label": 54, "sample": 55},
    late={
        "bytes": 56,
        "served_accuracy": 0.57,
        "estimate_low": 0.58,
        "estimate": 0.59,
        "estimate_high": 0.6,
        "bias": -0.61,
        "unanswered": 62,
        "expired_by_time": 63,
        "expired_by_bound": 64,
    },
    probe={
        "rows": 66,
        "scores": 67,
        "era_records": 68,
        "worst_class": 0.69,
        "worst_drop": 0.07,
        "worst_best_age": 97,
        "retention/auto": 0.71,
        "retention/ever": 0.72,
        "forgetting/auto": 0.73,
        "forgetting/ever": 0.74,
        "backward_transfer/auto": -0.75,
        "backward_transfer/ever": -0.76,
    },
    contexts={
        "contexts": 83,
        "visits": 84,
        "given_up": 85,
        "regained": 86,
        "reached": 87,
        "forward_transfer": 0.88,
    },
    eras={"auto": [0.77, 0.78], "ever": [0.79, 0.8]},
    classes={0: 0.81, 1: 0.82},
    dead_letters=11,
    dead_letters_lost=12,
    metrics={
        "accuracy": 0.13,
        "windowed_accuracy": 0.14,
        "kappa": -0.15,
        "log_loss": 1.6,
        "no_change_accuracy": 0.17,
        "majority_accuracy": 0.18,
        "balanced_accuracy": 0.19,
        "recall/0": 0.2,
        "recall/1": 0.21,
        "recall/other": 0.22,
    },
    measures={
        "gradient_alignment": 0.23,
        "gradient_alignment_age_chunks": 0.235,
        "step_size_mean": 0.24,
        "step_size_zero_ratio": 0.25,
        "update_norm": 0.26,
        "member_weight/slow": 0.27,
    },
    labels=("cat", 7),
    max_labels=28,
    memory={0: 29, 1: 30},
    memory_capacity=31,
    conformal={0.9: (0.91, 2.5), 0.95: (0.96, 3.5)},
    drift={"adwin": 32, "page_hinkley": 33},
    drift_times_s={"adwin": 34.5, "page_hinkley": 34.25},
    input_drift={"adwin": 89, "kswin": 90},
    input_drift_times_s={"adwin": 91.5, "kswin": 92.5},
    drift_alerts={"error": 0.0, "inputs": 0.0},
    classes_moved={1: 0.93, 0: 0.5},
    features_moved={"amount": -9.4, "x" * 70: 2.0},
    step_size_factor=9.5,
    kept_checkpoints=96,
    disk_refusals={"journal": 97, "checkpoint": 98, "snapshot": 99},
    disk_free_bytes={"state": 100, "publish": 101},
    checkpoint_number=35,
    checkpoint_bytes=36,
    checkpoint_time_s=37.5,
    snapshot_number=38,
    snapshot_time_s=39.5,
    source_up=True,
    source_errors=40,
    commit_errors=97,
    lag_records={"orders[0]": 41, "orders[1]": 42},
    lag_s=43.5,
    last_record_time_s=44.5,
    prefetch_records=45,
    prefetch_bytes=46,
    followers=47,
    follower_restarts=48,
    device_bytes={"cuda:0": 49},
)
SCALARS = {
    "read_records_total": 8,
    "turns_total": 9,
    "dead_letters_total": 11,
    "dead_letters_lost_total": 12,
    "accuracy_ratio": 0.13,
    "windowed_accuracy_ratio": 0.14,
    "kappa": -0.15,
    "log_loss": 1.6,
    "no_change_accuracy_ratio": 0.17,
    "majority_accuracy_ratio": 0.18,
    "balanced_accuracy_ratio": 0.19,
    "gradient_alignment": 0.23,
    "gradient_alignment_age_chunks": 0.235,
    "step_size_mean": 0.24,
    "step_size_zero_ratio": 0.25,
    "update_norm": 0.26,
    "step_size_factor": 9.5,
    "kept_checkpoints": 96,
    "labels": 2,
    "labels_limit": 28,
    "memory_capacity_rows": 31,
    "checkpoint_number": 35,
    "checkpoint_size_bytes": 36,
    "checkpoint_timestamp_seconds": 37.5,
    "snapshot_number": 38,
    "snapshot_timestamp_seconds": 39.5,
    "source_up": 1,
    "source_errors_total": 40,
    "commit_errors_total": 97,
    "lag_seconds": 43.5,
    "last_record_timestamp_seconds": 44.5,
    "prefetch_records": 45,
    "prefetch_bytes": 46,
    "followers": 47,
    "follower_restarts_total": 48,
    "accuracy_floor_ratio": 0.5,
    "pending_bytes": 56,
    "probe_rows": 66,
    "contexts": 83,
    "context_visits_total": 84,
    "context_visits_given_up_total": 85,
    "regained_records": 86,
    "reached_records": 87,
    "forward_transfer_ratio": 0.88,
    "probe_scores_total": 67,
    "probe_era_records": 68,
    "worst_class_accuracy_ratio": 0.69,
    "worst_class_drop_ratio": 0.07,
    "worst_class_best_age_records": 97,
    "served_accuracy_ratio": 0.57,
    "unlabelled_accuracy_bias_ratio": -0.61,
    "unanswered_labels_total": 62,
}
LABELLED = {
    "records_total": ("outcome", dict(FULL.outcomes)),
    "mean_retention_ratio": ("about", {"auto": 0.71, "ever": 0.72}),
    "forgetting_ratio": ("about", {"auto": 0.73, "ever": 0.74}),
    "backward_transfer_ratio": ("about", {"auto": -0.75, "ever": -0.76}),
    "retention_ratio": ("era", {"0": 0.77, "1": 0.78}),
    "retention_ever_ratio": ("era", {"0": 0.79, "1": 0.8}),
    "probe_class_accuracy_ratio": ("label", {"cat": 0.81, "7": 0.82}),
    "unlabelled_accuracy_ratio": ("bound", {"low": 0.58, "estimate": 0.59, "high": 0.6}),
    "label_expiries_total": ("reason", {"time": 63, "bound": 64}),
    "rejected_records_total": ("reason", {"decode": 4, "admit": 5, "learn": 6, "not_finite": 7}),
    "pending_records": ("stage", {"chunk": 10, "label": 54, "sample": 55}),
    "class_recall_ratio": ("label", {"cat": 0.2, "7": 0.21, "other": 0.22}),
    "member_weight_ratio": ("member", {"slow": 0.27}),
    "memory_rows": ("label", {"cat": 29, "7": 30, "other": 0}),
    "conformal_coverage_ratio": ("coverage", {"0.9": 0.91, "0.95": 0.96}),
    "conformal_set_labels": ("coverage", {"0.9": 2.5, "0.95": 3.5}),
    "drift_detections_total": ("detector", {"adwin": 32, "page_hinkley": 33}),
    "drift_timestamp_seconds": ("detector", {"adwin": 34.5, "page_hinkley": 34.25}),
    "input_drift_detections_total": ("detector", {"adwin": 89, "kswin": 90}),
    "input_drift_timestamp_seconds": ("detector", {"adwin": 91.5, "kswin": 92.5}),
    "drift_alert": ("signal", {"error": 0.0, "inputs": 0.0}),
    "drift_class_error_rise_ratio": ("label", {"7": 0.93, "cat": 0.5}),
    "drift_feature_shift": ("feature", {"amount": -9.4, "x" * 64 + "…1": 2.0}),
    "lag_records": ("partition", {"orders[0]": 41, "orders[1]": 42}),
    "device_memory_bytes": ("device", {"cuda:0": 49}),
    "disk_refusals_total": ("write", {"journal": 97, "checkpoint": 98, "snapshot": 99, "status": 0}),
    "disk_free_bytes": ("folder", {"state": 100, "publish": 101}),
}
SERVERS = {
    "requests_total",
    "request_seconds",
    "answered_rows_total",
    "posted_samples_total",
    "posted_labels_total",
    "lost_answers_total",
    "served_snapshot_number",
    "served_snapshot_timestamp_seconds",
}
SERVERS |= {"learner_silence_seconds", "failed_loads_total", "questions_waiting_records"}
OBSERVED = {
    "learn_seconds",
    "checkpoint_seconds",
    "checkpoint_pause_seconds",
    "publish_seconds",
    "label_delay_seconds",
    "probe_seconds",
}
INFOS = {"build_info", "config_info"}


def telemetry(folder=None, *, floor=None):
    info = Info(name="digits", learner="la-maml", model="mlp", source="log", device="cpu", digest="abc")
    return Telemetry(info, version="1.2.3", followers=FollowerFiles(folder), accuracy_floor=floor)


def samples(text):
    """(name without prefix, labels) → value."""
    return {
        (sample.name.removeprefix("streamlearn_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by_label(text, name):
    """Value of the one label → number."""
    return {labels[0][1]: value for (found, labels), value in samples(text).items() if found == name}


def test_each_number_of_a_reading_stands_under_its_name():
    page = telemetry(floor=0.5)
    page.show(FULL)
    text = page.text()
    found = samples(text)
    assert {name: found[(name, ())] for name in SCALARS} == SCALARS
    for name, (label, values) in LABELLED.items():
        assert by_label(text, name) == values
        assert all(labels[0][0] == label for (other, labels) in found if other == name)


def test_every_metric_of_the_list_is_checked_by_this_file():
    assert {row.name for row in ROWS} == set(SCALARS) | set(LABELLED) | SERVERS | OBSERVED | INFOS


def test_every_series_known_beforehand_is_there_at_the_first_scrape():
    text = telemetry().text()
    found = {name for name, _ in samples(text)}
    later = {
        "conformal_coverage_ratio",
        "conformal_set_labels",
        "member_weight_ratio",
        "drift_detections_total",
        "drift_timestamp_seconds",
        "input_drift_detections_total",
        "input_drift_timestamp_seconds",
        "drift_class_error_rise_ratio",
        "drift_feature_shift",
        "lag_records",
        "device_memory_bytes",
    }
    later |= {"probe_class_accuracy_ratio"}  # of the worst classes, whichever they turn out to be
    for row in ROWS:
        names = {f"{row.name}_bucket", f"{row.name}_sum", f"{row.name}_count"} if row.kind == "histogram" else {row.name}
        assert names <= found or row.name in later, row.name
    assert by_label(text, "records_total") == dict.fromkeys(OUTCOMES, 0)
    assert by_label(text, "rejected_records_total") == dict.fromkeys(REASONS, 0)
    assert by_label(text, "requests_total") == dict.fromkeys([*CODES, "other"], 0)
    assert samples(text)["process_resident_memory_bytes", ()] > 0


def test_before_the_first_record_a_gauge_says_that_there_is_nothing_yet():
    found = samples(telemetry().text())
    gauges = {"accuracy_ratio", "log_loss", "checkpoint_timestamp_seconds", "snapshot_number", "lag_seconds"}
    assert all(math.isnan(found[(name, ())]) for name in gauges | {"accuracy_floor_ratio"})
    assert all(math.isnan(found["disk_free_bytes", (("folder", name),)]) for name in ("state", "publish")), (
        "0 would be an alert"
    )
    assert found["source_up", ()] == 0


def test_a_detector_that_never_fired_has_a_series_too():
    page = telemetry()
    page.show(replace(FULL, drift_times_s={"adwin": 34.5}))
    shown = by_label(page.text(), "drift_timestamp_seconds")
    assert shown.keys() == {"adwin", "page_hinkley"}
    assert math.isnan(shown["page_hinkley"])


def test_there_is_no_accelerator_series_without_an_accelerator():
    page = telemetry()
    page.show(replace(FULL, device_bytes={}))
    assert by_label(page.text(), "device_memory_bytes") == {}


def test_what_runs_and_what_was_configured_are_labels():
    found = samples(telemetry().text())
    config = {"name": "digits", "learner": "la-maml", "model": "mlp", "source": "log", "device": "cpu", "digest": "abc"}
    assert found["config_info", tuple(sorted(config.items()))] == 1
    assert any(name == "build_info" and ("version", "1.2.3") in labels for name, labels in found)


def test_memory_names_the_labels_with_most_rows_and_sums_up_the_others():
    page = telemetry()
    counts = {row: 1000 - row for row in range(500)}
    page.show(replace(FULL, labels=[f"label {row}" for row in range(500)], memory=counts))
    shown = by_label(page.text(), "memory_rows")
    assert len(shown) == 21
    assert {f"label {row}": 1000 - row for row in range(20)}.items() <= shown.items()
    assert shown["other"] == sum(1000 - row for row in range(20, 500))


def test_partitions_beyond_the_bound_are_summed_up():
    page = telemetry()
    page.show(replace(FULL, lag_records={f"t[{i}]": i for i in range(1000)}))
    shown = by_label(page.text(), "lag_records")
    assert len(shown) == 101
    assert sum(shown.values()) == sum(range(1000))


def test_an_outcome_or_reason_nobody_knew_is_counted_as_other():
    page = telemetry()
    page.show(replace(FULL, rejected={"decode": 1, "moon": 2, "tide": 3}))
    assert by_label(page.text(), "rejected_records_total") == {
        "decode": 1,
        "admit": 0,
        "learn": 0,
        "not_finite": 0,
        "other": 5,
    }


def test_labels_that_look_alike_stay_apart_and_long_ones_are_cut():
    page = telemetry()
    labels = (1, "1", "-2", -2, "other", '"1"', "x" * 100, "x" * 101, 'new\n"line"')
    page.show(replace(FULL, labels=labels, memory={row: 10 + row for row in range(len(labels))}, metrics={}))
    shown = by_label(page.text(), "memory_rows")
    assert len(shown) == len(labels) + 1
    assert (shown["1"], shown['"1"'], shown["-2"], shown['"-2"'], shown['"other"']) == (10, 11, 13, 12, 14)
    assert sorted(shown.values()) == [0, *(10 + row for row in range(len(labels)))]
    assert max(map(len, shown)) < 70


def test_delays_of_labels_reach_from_a_second_to_a_week():
    page = telemetry()
    for delay_s in (0.5, 3000.0, 1e6):
        page.label_delay_seconds.observe(delay_s)
    found = {labels[0][1]: v for (name, labels), v in samples(page.text()).items() if name == "label_delay_seconds_bucket"}
    assert (found["1.0"], found["1800.0"], found["3600.0"], found["604800.0"], found["+Inf"]) == (1, 1, 2, 2, 3)


@pytest.mark.parametrize("name", sorted(OBSERVED - {"label_delay_seconds"}))
def test_a_duration_falls_into_its_bucket(name):
    page = telemetry()
    histogram = getattr(page, name)
    histogram.observe(0.02)
    histogram.observe(0.3)
    found = samples(page.text())
    buckets = {labels[0][1]: value for (found_name, labels), value in found.items() if found_name == f"{name}_bucket"}
    assert (buckets["0.01"], buckets["0.025"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (0, 1, 1, 2, 2)
    assert found[f"{name}_sum", ()] == pytest.approx(0.32)


def follower(folder, index, *, ok=0, refused=0, slow=0, number=1, age_s=0.1, **more):
    """What a follower writes, by the schema its own file states; all requests took 0.2 ms but `slow` of 2 s."""
    within = [0] * 13
    within[1], within[12] = ok + refused - slow, slow
    seconds = {"buckets": list(counts.BUCKETS), "counts": within, "sum": 0.0002 * (ok + refused - slow) + 2 * slow}
    told = {"requests": {"200": ok, "418": refused}, "rows": 2 * ok, "samples": 3, "lost_answers": 4, "seconds": seconds}
    told |= {"served_number": number, "served_time_seconds": 1000.5 + index, "failed_loads": 1, "age_seconds": age_s} | more
    (folder / f"follower-{index}.json").write_text(json.dumps(told))


def test_one_scrape_shows_what_all_followers_did(tmp_path):
    follower(tmp_path, 0, ok=10, refused=1, slow=2, number=7, age_s=0.5)
    follower(tmp_path, 1, ok=5, number=6, age_s=0.25)
    text = telemetry(tmp_path).text()
    found = samples(text)
    assert by_label(text, "requests_total") == {**dict.fromkeys(CODES, 0), "200": 15, "other": 1}
    assert found["answered_rows_total", ()] == 30
    assert found["posted_samples_total", ()] == 6
    assert found["lost_answers_total", ()] == 8
    assert found["failed_loads_total", ()] == 2
    assert found["served_snapshot_number", ()] == 6
    assert found["served_snapshot_timestamp_seconds", ()] == 1000.5, "the oldest that is served"
    assert found["learner_silence_seconds", ()] == 0.5
    buckets = by_label(text, "request_seconds_bucket")
    assert (buckets["0.0001"], buckets["0.00025"], buckets["1.0"], buckets["+Inf"]) == (0, 14, 14, 16)
    assert found["request_seconds_count", ()] == 16
    assert found["request_seconds_sum", ()] == pytest.approx(14 * 0.0002 + 4)


def test_a_follower_that_begins_again_takes_nothing_back(tmp_path):
    page = telemetry(tmp_path)
    totals = []
    for ok in (10, 12, 3, 4):  # after 12 it died, and its successor counts from 0
        follower(tmp_path, 0, ok=ok)
        totals.append(by_label(page.text(), "requests_total")["200"])
    (tmp_path / "follower-0.json").unlink()
    totals.append(by_label(page.text(), "requests_total")["200"])
    assert totals == [10, 12, 15, 16, 16]


@pytest.mark.parametrize("torn", ["", "{", "[]", "3", '{"requests": {}}', '{"requests": 1, "seconds": 2}'])
def test_a_file_that_is_not_whole_changes_nothing(tmp_path, torn):
    page = telemetry(tmp_path)
    follower(tmp_path, 0, ok=10)
    before = by_label(page.text(), "requests_total")
    (tmp_path / "follower-1.json").write_text(torn)
    (tmp_path / "follower-0.json").write_text(torn)
    assert by_label(page.text(), "requests_total") == before


def test_a_follower_that_serves_nothing_yet_has_no_number(tmp_path):
    follower(tmp_path, 0, number=None, age_s=None, served_time_seconds=None)
    found = samples(telemetry(tmp_path).text())
    assert math.isnan(found["served_snapshot_number", ()])
    assert math.isnan(found["served_snapshot_timestamp_seconds", ()])
    assert math.isnan(found["learner_silence_seconds", ()])
    assert math.isnan(found["questions_waiting_records", ()])


def test_followers_and_the_page_agree_on_the_buckets_before_the_first_file(tmp_path):
    assert counts.BUCKETS == follower_files.BUCKETS
    mine = counts.Counts()
    mine.request(200, 0.0002)
    (tmp_path / "follower-0.json").write_text(json.dumps(mine.values(age_s=0.5)))
    assert by_label(telemetry(tmp_path).text(), "requests_total")["200"] == 1


def test_a_real_scrape_over_http_gives_the_page_and_stops():
    page = telemetry()
    page.show(FULL)
    server = page.serve("127.0.0.1", 0)
    with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert samples(answer.read().decode())["accuracy_ratio", ()] == 0.13
    server.stop()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may linger, a listener may not
        probe.bind(("127.0.0.1", server.port))


def test_a_port_in_use_is_a_configuration_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"telemetry.port {port} on 127.0.0.1 cannot be opened \(Address already in use\)"
        ):
            telemetry().serve("127.0.0.1", port)


def test_a_scrape_never_mixes_two_readings():
    page = telemetry()
    readings = [replace(FULL, outcomes=dict.fromkeys(OUTCOMES, n), turns=n, lag_records={"a": n, "b": n}) for n in range(50)]
    page.show(readings[0])
    done = threading.Event()

    def loop():
        while not done.is_set():
            for reading in readings:
                page.show(reading)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for _ in range(100):
            text = page.text()
            turns = samples(text)["turns_total", ()]
            assert set(by_label(text, "records_total").values()) | set(by_label(text, "lag_records").values()) == {turns}
    finally:
        done.set()
        thread.join()


def crowded():
    """A reading that has more of everything than any page shows."""
    many = range(1000)
    named = {f"n{i}": i + 1 for i in many}
    return replace(
        FULL,
        labels=[f"label {i}" for i in many],
        max_labels=1000,
        metrics=FULL.metrics | {f"recall/{i}": 0.5 for i in many},
        measures=FULL.measures | {f"member_weight/{name}": 0.001 for name in named},
        memory=dict.fromkeys(many, 5),
        classes=dict.fromkeys(many, 0.5),
        classes_moved=dict.fromkeys(many, 0.5),
        features_moved={f"feature {i}": 1.0 for i in many},
        eras={"auto": [0.5] * 1000, "ever": [0.5] * 1000},
        conformal={i / 1000: (0.5, 1.0) for i in many},
        outcomes=FULL.outcomes | named,
        rejected=FULL.rejected | named,
        pending=FULL.pending | named,
        drift=named,
        drift_times_s=named,
        input_drift=named,
        input_drift_times_s=named,
        drift_alerts=FULL.drift_alerts | named,
        lag_records=named,
        device_bytes=named,
        disk_refusals=FULL.disk_refusals | named,
    )


def test_every_label_is_bounded_and_so_is_the_page(tmp_path):
    for index in range(4):
        follower(tmp_path, index, ok=10)
    page = telemetry(tmp_path)
    page.show(crowded())
    found = Counter(name for name, _ in samples(page.text()))
    for row in ROWS:
        assert not row.label or row.values or row.limit, f"{row.name} has a label and no bound"
        ends = ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",)
        assert 0 < sum(found[row.name + end] for end in ends) <= row.most_series, row.name
    assert sum(row.most_series for row in ROWS) < 1000
    assert found.total() < 1000


@pytest.mark.parametrize("row", [row for row in ROWS if row.limit], ids=lambda row: row.name)
def test_what_is_past_the_bound_is_summed_up_only_where_a_sum_means_something(row):
    page = telemetry()
    page.show(crowded())
    shown = by_label(page.text(), row.name)
    known = row.values or ()
    if row.kind == "counter" or row.unit in {"rows", "records", "bytes"}:
        assert shown["other"] > max(value for name, value in shown.items() if name != "other"), "the sum of hundreds"
    else:
        assert "other" not in shown or ("other" in known and shown["other"] == 0.22), "as the reading has it, and no sum"
        assert len(shown) <= row.limit + len(known)


def test_a_scrape_of_the_fullest_page_takes_less_than_50_ms_of_processor_time(tmp_path):
    """Both ends of it, over HTTP; the clock on the wall would tell how busy the machine is."""
    for index in range(4):
        follower(tmp_path, index, ok=10)
    page = telemetry(tmp_path)
    page.show(crowded())
    server, times = page.serve("127.0.0.1", 0), []
    try:
        for _ in range(21):
            begun = time.process_time()
            with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                read = answer.read()
            times.append(time.process_time() - begun)
    finally:
        server.stop()
    assert len(read) > 20_000
    assert statistics.median(times) < 0.05


def test_promtool_has_nothing_to_say_about_a_real_scrape(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus holds it)")
    follower(tmp_path, 0, ok=10)
    page = telemetry(tmp_path)
    page.show(FULL)
    page.learn_seconds.observe(0.01)
    for text in (telemetry().text(), page.text()):
        checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_names_follow_the_conventions():
    for row in ROWS:
        assert (row.kind == "counter") == row.name.endswith("_total"), row.name
        assert (row.kind == "info") == row.name.endswith("_info"), row.name
        assert row.unit not in {"seconds", "bytes", "ratio"} or row.unit in row.name, row.name
        assert row.help
        assert not row.help.endswith(".")
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_reference_is_made_from_the_list():
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), "run: python -m streamlearn.telemetry > docs/metrics.md"
