"""Log lines are JSON, say where the loop is and which model it has, and carry the trace of a record from its header on."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

import connectors
from benchmarks.reliability.stream import logged
from benchmarks.testbed.forks import Forks
from benchmarks.testbed.small import configured, on_log, samples, settled
from streamlearn import logs
from streamlearn.records import Message, Record, traceparent

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _as_it_was() -> Any:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.getLogger().handlers = [each for each in logging.getLogger().handlers if type(each).__name__ != "_Others"]
    logs._told["details"] = False


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def of(event: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in found if each["event"] == event]


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        (TRACE, True),
        (TRACE.encode(), True),
        (None, False),
        ("", False),
        (TRACE.upper(), False),
        (TRACE + "-more", False),
        (TRACE + "\n", False),
        ("ff" + TRACE[2:], False),
        ("00-" + "0" * 32 + TRACE[35:], False),
        (TRACE[:36] + "0" * 16 + TRACE[-3:], False),
        (b"\xff" * 55, False),
    ],
)
def test_a_trace_is_what_w3c_says_and_nothing_else_goes_into_logs(found: Any, taken: bool) -> None:
    assert traceparent(found) == (TRACE if taken else None)
    headers = () if found is None else (("traceparent", found if isinstance(found, bytes) else found.encode("latin-1")),)
    assert Record("a[0]", 0, b"", None, headers).traceparent == (TRACE if taken else None)


def test_a_cloud_event_bears_its_trace_as_an_attribute() -> None:
    assert Record("a[0]", 0, b"", None, (("ce_traceparent", TRACE.encode()),)).traceparent == TRACE


def test_what_other_libraries_say_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    with logs.carrying(TRACE):
        logging.getLogger("kafka.conn").warning("broker %d\nis away", 3)
    logging.getLogger("kafka.conn").info("not this")
    try:
        raise OSError("broken")
    except OSError:
        logging.getLogger("urllib").exception("failed")
    first, second = lines(capsys.readouterr().err)
    assert (first["event"], first["logger"], first["level"]) == ("broker 3\nis away", "kafka.conn", "warning")
    assert first["traceparent"] == TRACE
    assert "OSError: broken" in second["exception"]


def test_to_be_configured_twice_says_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    logging.getLogger("x").error("once")
    assert len(lines(capsys.readouterr().err)) == 1


def test_a_flood_of_lines_is_bounded_and_counted() -> None:
    now = [0.0]
    may = logs.Sometimes(3, clock=lambda: now[0])
    assert [may() for _ in range(5)] == [True, True, True, False, False]
    now[0] = 1.0
    assert may()
    assert (may.take_left_out(), may.take_left_out()) == (2, 0)


def test_lines_say_where_the_loop_is_which_model_it_has_and_whose_trace(tmp_path: Path, forks: Forks) -> None:
    config, state = on_log(tmp_path, 95, log={"level": "debug"}, checkpoint={"every_records": 40})
    sink = connectors.open_sink("log", {"path": str(tmp_path / "samples.sqlite")})
    headers = (("traceparent", TRACE.encode()),)
    sink.write([Message(b"secret-nonsense", None, headers), Message(b"more"), *(Message(each) for each in samples(10, 1))])
    sink.close()
    life = forks.start("run", config, "--set", "source.poll_records=20")
    life.until(lambda: settled(state) == 107, "the last record", 240.0)
    life.stop()
    found = lines(life.stderr)
    assert all({"event", "level", "timestamp"} <= set(each) for each in found)

    traced, plain = of("record.rejected", found)
    assert (traced["place"], traced["partition"], traced["position"]) == ("samples[0]@95", "samples[0]", 95)
    assert (traced["traceparent"], traced["stage"], traced["error"]) == (TRACE, "decode", "DecodeError")
    assert traced["model_version"] == 8, "that of the run of records it came in, from 80 on"
    assert "traceparent" not in plain
    assert "nonsense" not in life.stderr, "the reason may name what stood in the record: it is in the letter alone"

    turns = of("loop.turn", found)
    assert sum(each["read"] for each in turns) == 107
    assert [each["position"] for each in turns] == sorted(each["position"] for each in turns)
    assert turns[-1]["model_version"] == 10
    last = of("checkpoint.written", found)[-1]
    assert (last["model_version"], last["positions"]) == (10, {"samples[0]": 107})
    assert of("snapshot.published", found)[-1]["model_version"] == 10
    (letter, _) = logged(state / "dead_letters.sqlite")
    assert dict(letter.headers)["traceparent"] == TRACE.encode()


def test_at_the_usual_level_no_line_is_said_for_each_turn_or_snapshot(tmp_path: Path, forks: Forks) -> None:
    config, state = on_log(tmp_path, 60)
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 60, "the last record", 240.0)
    life.stop()
    said = {each["event"] for each in lines(life.stderr)}
    assert not said & {"loop.turn", "snapshot.published"}
    assert "checkpoint.written" in said


def test_drift_says_when_and_by_which_model(tmp_path: Path, forks: Forks) -> None:
    keys = {"adwin": {"warm_up": 10}, "page_hinkley": {"warm_up": 10, "min_instances": 5}}
    config, state = on_log(tmp_path, drift={"detectors": ["adwin"], "adwin": keys["adwin"]})
    usual = [json.loads(each) for each in samples(1500)]
    turned = [each | {"label": f"other-{each['label']}"} for each in usual]
    sink = connectors.open_sink("log", {"path": str(tmp_path / "samples.sqlite")})
    sink.write([Message(json.dumps(each).encode()) for each in (*usual, *turned)])
    sink.close()
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 3000, "the last record", 240.0)
    life.stop()
    first = of("drift.detected", lines(life.stderr))[0]
    assert (first["detector"], first["partition"]) == ("adwin", "samples[0]")
    assert 1500 <= first["row"] <= 2000
    assert first["row"] - 500 <= first["position"] <= first["row"]
    assert first["model_version"] >= 150


def test_a_trace_goes_from_a_records_header_to_its_answer(tmp_path: Path, forks: Forks) -> None:
    """Also where the label comes later: the trace is that of the sample."""
    answers = {"type": "log", "path": str(tmp_path / "answers.sqlite"), "unique_keys": True}
    config, state = on_log(tmp_path, predictions=answers)
    told = [json.loads(each) for each in samples(10)]
    label = {"kind": "label", "id": "late", "label": told[3].pop("label")}
    told[3]["id"] = "late"
    other = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
    sink = connectors.open_sink("log", {"path": str(tmp_path / "samples.sqlite")})
    traces = {3: TRACE, 7: other, 10: other}
    for i, each in enumerate([*told, label]):
        sink.write([Message(json.dumps(each).encode(), None, (("traceparent", traces[i].encode()),) if i in traces else ())])
    sink.close()
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 11, "the last record", 240.0)
    life.stop()
    found = {(each.key or b"").decode(): dict(each.headers).get("traceparent") for each in logged(tmp_path / "answers.sqlite")}
    assert len(found) == 10
    carried = {place: trace.decode() for place, trace in found.items() if trace}
    assert carried == {"samples[0]@3": TRACE, "samples[0]@7": other}


def test_a_lost_source_says_where_it_was(tmp_path: Path, forks: Forks) -> None:
    config = configured(tmp_path / "state", {"type": "file", "path": str(tmp_path / "samples.jsonl"), "follow": True})
    life = forks.start("run", config)
    assert "positions" in life.event("source.lost")
    life.kill(9)
    life.wait()
