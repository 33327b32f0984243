"""The benchmark on real streams scores what it says: late labels come late, margins and ranks are right, gaps stay empty."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import streams, streams_baselines, streams_paper, streams_report, streams_speed
from benchmarks.images import digits
from benchmarks.stream_data import AT_ONCE, Labels, Stream, accuracy, arrivals, kappa, met
from benchmarks.streams_report import Cell, Line, lines, ranks, report
from benchmarks.tasks import Shape


def runs_of_labels(count: int = 600) -> Stream:
    """A label stays for 40 rows; columns say nothing."""
    y = np.repeat(np.arange(count) % 3, 40)[:count].astype(np.int64)
    return Stream("made", np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32), y, whole=True)


@pytest.mark.parametrize("labels", [Labels(0), Labels(7), Labels(100), Labels(10, 0.3)])
def test_a_label_comes_after_its_delay_and_each_row_is_asked_once(labels: Labels) -> None:
    learned: list[int] = []
    asked: list[int] = []
    for known, question in arrivals(1000, labels, seed=0):
        learned += known.tolist()
        assert not learned or learned[-1] < question.start - labels.delay or labels.delay == 0
        if labels.share == 1.0:
            assert len(learned) == max(0, question.start - labels.delay)
        asked += range(question.start, question.stop)
    assert asked == list(range(1000))
    assert learned == sorted(set(learned))
    assert abs(len(learned) / 1000 - labels.share) < 0.2


def test_no_change_with_late_labels_repeats_a_label_of_that_many_rows_ago() -> None:
    data = runs_of_labels()
    model, labels = streams_baselines.METHODS["no-change"](0), Labels(20)
    found = streams_baselines.run(model, data, labels)
    newest = [max(-1, start - 21) for start in range(0, 600, labels.block) for _ in range(labels.block)]
    expected = [data.y[n] == data.y[i] if n >= 0 else False for i, n in enumerate(newest)]
    assert found["accuracy"] == round(100 * float(np.mean(expected)), 3)


def test_labels_at_once_are_no_late_labels() -> None:
    data = runs_of_labels()
    found = streams_baselines.run(streams_baselines.METHODS["no-change"](0), data, AT_ONCE)
    assert found["accuracy"] == round(100 * float(np.mean(data.y[1:] == data.y[:-1])) * 599 / 600, 3)


def test_members_answers_are_scored_one_by_one() -> None:
    learner = streams.learner("pool", {"members": ["quantile-ramps", "label-law"]}, columns=3, seed=0)
    found = streams.run(learner, runs_of_labels(), Labels(20), seed=0, members=True)
    assert set(found["members"]) == {"quantile-ramps", "label-law"}
    assert 0 < found["members"]["label-law"] < 100


def test_accuracy_and_kappa_by_hand() -> None:
    labels, answers = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    assert (accuracy(labels, answers), kappa(labels, answers)) == (75.0, 50.0)
    assert met(np.array([7, 3, 7, 9])).tolist() == [0, 1, 0, 2]


def cell(value: float, **more: Any) -> dict[str, Any]:
    return {"accuracy": value, "kappa": 0.0, "state_bytes": 1 << 20, "whole": True, **more}


def line(own: float, *others: float) -> Line:
    return Line("wisdm", 10, [cell(own)], dict(zip(streams_report.METHODS, map(cell, others), strict=False)), None)


def test_margins_and_ranks_by_hand() -> None:
    first, second = line(90, 80, 85, 70, 91, 92), line(95, 80, 85, 70, 95, 60)
    assert first.margin() == -2
    assert first.margin(without="srp10") == -1
    assert ranks([first, second]) == {"own": 2.25, "no-change": 4.5, "logistic": 3.5, "hat": 5.5, "arf10": 1.75, "srp10": 3.5}


def test_a_margin_over_baselines_that_were_not_all_run_is_left_empty() -> None:
    assert np.isnan(line(90, 80, 85).margin())
    theirs = [Cell("wisdm", "no-change", "", 10, cell(80))]
    page = "\n".join(report([Cell("wisdm", "pool", "", 10, cell(90))], theirs, "pool", {}))
    assert "nan" not in page
    assert "| 80.00 |  |" in page


def test_lengths_are_not_mixed_and_served_answers_stand_beside_the_learners() -> None:
    ours = [
        Cell("wisdm", "pool", "", 10, cell(90)),
        Cell("wisdm", "pool", "", 10, cell(92)),
        Cell("wisdm", "pool", "", 5, cell(50, whole=False)),
        Cell("wisdm", "pool", "served-10", 10, cell(77.77)),
        Cell("wisdm", "pool", "served-10", 5, cell(11.11)),
    ]
    (found,) = lines(ours, [], "pool", {}, whole=True)
    assert (found.rows, found.accuracy) == (10, 91.0)
    page = "\n".join(report(ours, [], "pool", {}))
    assert "77.77" in page
    assert "100 rows/s: 77.77 in the mean of 1 streams, where the learner's own answers are right in 91.00; at worst" in page
    assert "11.11" not in page


def test_late_labels_are_compared_at_one_length_and_means_are_over_streams() -> None:
    ours = [
        Cell("wisdm", "pool", "late-1000", 10, cell(40)),
        Cell("wisdm", "pool", "late-1000", 10, cell(50)),
        Cell("wisdm", "pool", "late-1000", 5, cell(99)),
        Cell("outdoor", "pool", "late-1000", 10, cell(60)),
        Cell("outdoor", "pool", "", 10, cell(80)),
    ]
    theirs = [Cell("wisdm", "hat", "late-1000", 10, cell(51)), Cell("wisdm", "arf10", "late-1000", 10, cell(47))]
    page = list(report(ours, theirs, "pool", {}))
    assert "| 1,000 rows | 52.50 |  |  |" in page  # of both streams; at once, the other one is missing
    assert "| at once |  |  |  |" in page
    assert "| wisdm |  |  |  | 45.00 ± 7.07 · 51.00 hat |  |" in page
    assert "| outdoor | 80.00 |  |  | 60.00 |  |" in page


def test_speeds_stand_beside_whole_streams_alone() -> None:
    speed = {"wisdm": {"pool": [1, 2000.4, 3], "arf10": [1, 500.2, 3], "ratio": [1, 4.04, 9]}}
    ours = [Cell("wisdm", "pool", "", 10, cell(90)), Cell("outdoor", "pool", "", 10, cell(80))]
    page = list(report(ours, [], "pool", speed))
    whole, first = (row for row in page if row.startswith("| wisdm"))
    assert whole.endswith("| 2,000 | 500 | 4.0 | 1.0 | 1 |")
    assert first.endswith("|  |  |  | 1.0 | 1 |")
    assert "\nRows a second over those of ARF: 4.0 in the median, 4.0 at least.\n" in page


def test_both_sides_of_the_speed_benchmark_learn_the_same_rows_in_turns() -> None:
    found = streams_speed.compared(runs_of_labels(1100), 0)
    assert found["turns"] == 2
    for name in ("pool", "arf10", "ratio"):
        assert len(found[name]) == 3
        assert 0 < found[name][0] <= found[name][1] <= found[name][2]


def test_results_in_the_repository_are_read(tmp_path: Path) -> None:
    for name in ("streams", "streams_baselines", "streams_paper", "streams_speed"):
        (tmp_path / f"{name}.json").write_bytes((streams_report.RESULTS / f"{name}.json").read_bytes())
    assert streams_report.main(["--folder", str(tmp_path)]) == 0
    assert (tmp_path / "streams.md").read_text() == (streams_report.RESULTS / "streams.md").read_text()


def test_a_cell_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = runs_of_labels(60)
    monkeypatch.setattr(streams, "stream", lambda *_: given)
    out, members = tmp_path / "out.json", '{"members": ["label-law"]}'
    arguments = ["--streams", "wisdm", "--seeds", "0", "--learner", members, "--out", str(out)]
    assert streams.main(arguments) == 0
    written = json.loads(out.read_text())
    assert list(written["cells"]) == ["wisdm/pool/60/0"]
    monkeypatch.setattr(streams, "run", lambda *_, **__: pytest.fail("run again"))
    assert streams.main(arguments) == 0


def test_the_pool_on_the_papers_streams_is_asked_by_every_test_image_or_every_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_paper, "STREAMS", {"rotations": Shape(2, 60, 20, turns=True)})
    monkeypatch.setattr(streams_paper, "images", digits)
    out = tmp_path / "out.json"
    arguments = ["--streams", "rotations", "--seeds", "0", "--learner", '{"members": ["quantile-ramps"]}', "--out", str(out)]
    assert streams_paper.main([*arguments, "--every", "10"]) == 0
    assert streams_paper.main([*arguments, "--about", "auto", "ever"]) == 0
    runs = json.loads(out.read_text())["runs"]
    assert list(runs) == ["rotations/pool/50/0", "rotations/pool/500/0"]
    assert "now" in runs["rotations/pool/50/0"]
    assert "now" not in runs["rotations/pool/500/0"]
    assert 10 < runs["rotations/pool/500/0"]["auto"] < 100
    assert (
        f"| rotations | pool | 500 | 1 | {runs['rotations/pool/500/0']['auto']:.2f} |  |" in out.with_suffix(".md").read_text()
    )


def test_an_old_snapshot_is_no_late_label() -> None:
    """The law of labels is trusted as with labels at once; with late ones it is not."""
    settings = {"members": ["quantile-ramps", "label-law"]}
    found = [
        streams.run(streams.learner("pool", settings, columns=3, seed=0), runs_of_labels(), labels, seed=0)["measures"]
        for labels in (Labels(20, is_served=True), Labels(20))
    ]
    weights = [each["member_weight/label-law"] for each in found]
    assert weights[0] > 0.5 > weights[1]
