"""The pipeline benchmark counts what it says, and still runs."""

import itertools
import json
import time
from types import SimpleNamespace

import pytest

from benchmarks import pipeline_side
from benchmarks.pipeline import sample_messages
from benchmarks.pipeline_side import Counted, Stages
from streamlearn import assemble
from streamlearn.config import configure
from streamlearn.prefetch import decoded
from streamlearn.records import Record


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at a clock is a second later; CPU time passes at half the pace."""
    seconds = itertools.count()
    monkeypatch.setattr(
        pipeline_side,
        "time",
        SimpleNamespace(
            perf_counter=lambda: float(next(seconds)),
            thread_time=lambda: next(seconds) / 2,
            process_time=lambda: next(seconds) / 4,
        ),
    )


@pytest.mark.usefixtures("clocks")
def test_stages_are_timed_call_by_call_and_step_by_step() -> None:
    """Between entering and leaving, two clocks are read after one another: two looks of CPU at half pace, two of wall."""

    class Work:
        def once(self, given: int, *, more: int) -> int:
            return given + more

        def steps(self, count: int) -> list[int]:
            return iter(range(1, count))

    stages, work = Stages(), Work()
    stages.time(work, "once", "once")
    stages.time_steps(work, "steps", "steps")
    assert [work.once(1, more=2), work.once(3, more=4)] == [3, 7]
    assert stages.spent["once"] == (2 * 2 / 2, 2 * 2.0)
    assert list(work.steps(3)) == [1, 2]
    assert stages.spent["steps"] == (3 * 2 / 2, 3 * 2.0), "two steps and the end"


@pytest.mark.usefixtures("clocks")
def test_only_records_between_the_marks_count() -> None:
    stages = Stages()
    counted = Counted(first=100, last=300, stages=stages)
    assert not counted.at(50)
    with stages.stage("learn"):
        pass
    assert not counted.at(120)
    assert not counted.at(200), "no mark in between"
    with stages.stage("learn"):
        pass
    assert counted.at(320)
    figures = counted.figures()
    assert figures["rows_per_s"] == pytest.approx(200 / 6)  # 200 rows; clocks were looked at six times in between
    assert figures["cpu_us"] == pytest.approx(1e6 * 6 / 4 / 200)
    assert counted.stages() == {"learn": [1e6 * 1 / 200, 1e6 * 2 / 200]}


@pytest.mark.parametrize("form", ["array", "columns"])
def test_both_forms_of_a_record_say_the_same(form: str) -> None:
    from benchmarks.pipeline import FEATURES, configuration  # noqa: PLC0415

    config = configure(configuration(form, "auto") | {"source": {"type": "log", "path": "unused"}})
    records = [Record("p[0]", i, m.value) for i, m in enumerate(sample_messages(5, form))]
    (run,) = decoded(records, assemble.decoder(config), config.input.row)
    plain = [json.loads(m.value) for m in sample_messages(5, "array")]
    assert run.x.shape == (5, FEATURES)
    assert run.x.tolist() == [[pytest.approx(value) for value in each["features"]] for each in plain]
    assert [sample.label for sample in run.samples] == [each["label"] for each in plain]


def test_it_runs_through_a_real_kafka(kafka, tmp_path, monkeypatch, capsys):
    from benchmarks import pipeline  # noqa: PLC0415  takes Kafka's client, which the other tests do without

    monkeypatch.setenv("STREAMLEARN_KAFKA", kafka)
    out = tmp_path / "pipeline.json"
    began = time.perf_counter()
    pipeline.main(["--cells", "array, nearest-mean", "--records", "3000", "--rounds", "1", "--out", str(out)])
    took_s = time.perf_counter() - began
    found = json.loads(out.read_text())["array, nearest-mean"]
    assert "| learner: learn |" in capsys.readouterr().out
    for side in ("alone", "daemon"):
        assert 3000 / took_s < found[side]["rows_per_s"][1] < 1e6
    stages, whole = found["stages"]["stages"], found["stages"]["whole"]
    assert {"prefetch: poll", "prefetch: decode", "learner: admit", "learner: learn", "learner: score"} <= set(stages)
    apart = sum(cpu for name, (cpu, _) in stages.items() if "part of" not in name)
    assert 0.5 * whole["cpu_us"] < apart <= whole["cpu_us"], "the stages are most of what the process does, and no more"
