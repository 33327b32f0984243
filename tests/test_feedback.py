"""Late labels by HTTP and from a second source, and answers that were really given."""

import json
import threading
import urllib.request

import msgspec
import numpy as np
import pytest
import structlog

import connectors
from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.small import configured, samples
from benchmarks.testbed.waiting import DEADLINE_S
from connectors.together import Beside, TogetherSource
from streamlearn import decode
from streamlearn.errors import SinkError, SourceError
from streamlearn.records import LABEL, Message, Record
from streamlearn.serving.feedback import AnswerRecords
from streamlearn.serving.open_inference import Answer, LabelTexts, Question, Wanted
from tests.test_http import INFER, TOKEN, answering, get, post, rows

FEEDBACK = "/v2/models/digits/feedback"


def test_feedback_is_written_as_late_labels_that_the_loop_can_read():
    written = []
    app = answering(samples=written.extend)
    given = [{"id": "a", "label": "cat"}, {"id": 5, "label": 7, "time": 12}]
    assert post(app, FEEDBACK, given).json() == {"accepted": 2}
    assert post(app, FEEDBACK, given[0]).json() == {"accepted": 1}
    decoder = decode.decoder_for(decode.Settings(), (2,))
    found = [decoder.decode(Record("a[0]", 0, m.value, m.key, m.headers), np.zeros(2, np.float32)) for m in written]
    assert [(s.kind, s.id, s.label, s.time_ms) for s in found] == [
        ("label", "a", "cat", None),
        ("label", "5", 7, 12),
        ("label", "a", "cat", None),
    ]
    assert app.endpoint.counts.feedback == 3
    assert app.endpoint.counts.samples == 0
    assert "feedback" in get(app, "/v2").json()["extensions"]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "a"},
        {"label": 1},
        {"id": "", "label": 1},
        {"id": "a", "label": 0.5},
        {"id": "a", "label": 1, "time": None},
        [],
        5,
        b"{",
    ],
)
def test_bad_feedback_is_refused_whole(bad):
    written = []
    given = bad if isinstance(bad, bytes) or not isinstance(bad, dict) else [{"id": "b", "label": 1}, bad]
    assert post(answering(samples=written.extend), FEEDBACK, given).status_code == 400
    assert written == []


def test_feedback_needs_somewhere_to_go_and_the_same_leave_as_samples():
    one = {"id": "a", "label": 1}
    assert post(answering(), FEEDBACK, one).status_code == 501
    assert post(answering(samples=list, token=TOKEN), FEEDBACK, one).status_code == 401
    assert post(answering(samples=list), FEEDBACK, one, Origin="http://evil.example").status_code == 403

    def broken(_):
        raise SinkError("full")

    assert post(answering(samples=broken), FEEDBACK, one).status_code == 503


def two_rows():
    """A question with an id, and its answer."""
    question = Question(np.array([[1, 2], [3, 4]], np.float32), (Wanted("label", False),), "q", "auto")
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    return question, Answer(9, LabelTexts.of(("x", 7)), np.array([1, 0]), probabilities)


def test_answers_are_recorded_with_the_id_of_each_row_and_lost_ones_are_counted():
    written = []
    question, answer = two_rows()
    records = AnswerRecords(written.extend)
    records.take(question, answer, ("x", 7))
    records.close()
    decoder, out = decode.decoder_for(decode.Settings(), (2,)), np.zeros(2, np.float32)
    found = [decoder.decode(Record("a[0]", 0, m.value, m.key, m.headers), out) for m in written]
    assert [(s.kind, s.id, s.given.number, s.given.label) for s in found] == [
        ("answer", "q/0", 9, 7),
        ("answer", "q/1", 9, "x"),
    ]
    assert out.tolist() == [3, 4]
    np.testing.assert_allclose(np.exp(found[0].given.logits), [0.25, 0.75], rtol=1e-6)

    def broken(_):
        raise SinkError("full")

    app = answering(answers=AnswerRecords(broken))
    assert app.endpoint.told()["lost_answers"] == 0
    assert post(app, INFER, rows([1, 2], [3, 4], id="q")).status_code == 200
    assert post(app, INFER, rows([1, 2])).status_code == 200, "without an id nothing is recorded"
    app.close()
    assert app.endpoint.told()["lost_answers"] == 2


def test_answers_for_which_there_is_no_room_are_lost_and_the_log_says_so_ever_more_rarely():
    begun, goes_on = threading.Event(), threading.Event()

    def slow(_):
        begun.set()
        goes_on.wait(DEADLINE_S)

    records = AnswerRecords(slow, queued=1)
    records.take(*two_rows(), ("x", 7))
    assert begun.wait(DEADLINE_S)
    with structlog.testing.capture_logs() as said:
        for _ in range(1 + 5):  # for one there is room
            records.take(*two_rows(), ("x", 7))
    goes_on.set()
    records.close()
    assert records.lost == 2 * 5
    assert [(line["event"], line["lost"]) for line in said] == [("answers.not_written", lost) for lost in (2, 4, 8)]


def test_two_sources_are_one_and_what_comes_from_that_of_labels_is_marked():
    first, second = MemorySource({"a[0]": [b"1", b"2", b"3"]}, endless=True), MemorySource({"l[0]": [b"4", b"5"]}, endless=True)
    both = TogetherSource([Beside(first), Beside(second, LABEL)])
    both.seek({"a[0]": 1})
    records = [record for _ in range(6) for record in both.poll(10, 0.0)]
    assert sorted((r.partition, r.position, r.headers) for r in records) == [
        ("a[0]", 1, ()),
        ("a[0]", 2, ()),
        ("l[0]", 0, LABEL),
        ("l[0]", 1, LABEL),
    ]
    assert both.positions() == both.ends() == {"a[0]": 3, "l[0]": 2}
    both.commit({"a[0]": 2, "l[0]": 1})
    assert (first.committed, second.committed) == ([{"a[0]": 2}], [{"l[0]": 1}])
    assert not both.exhausted()
    both.close()


def test_it_is_over_when_the_first_is_and_the_others_have_given_what_they_had():
    first, second = MemorySource({"a[0]": [b"1"]}), MemorySource({"l[0]": [b"4"]}, endless=True)
    both = TogetherSource([Beside(first), Beside(second)])
    both.seek({})
    seen = []
    while not both.exhausted():
        seen += both.poll(1, 0.0)
    assert {record.partition for record in seen} == {"a[0]", "l[0]"}
    both.close()


def test_two_partitions_of_one_name_are_refused():
    with pytest.raises(SourceError, match=r"a\[0\]"):
        TogetherSource([Beside(MemorySource({"a[0]": []})), Beside(MemorySource({"a[0]": []}))]).seek({})


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_a_served_answer_is_scored_by_its_late_label_and_a_second_source_brings_labels_too(tmp_path, forks):
    (port,) = free_ports(1)
    held = samples(60)
    unlabelled = msgspec.json.decode(held[0]) | {"id": "late"}
    label = unlabelled.pop("label")
    values = [*held[1:], msgspec.json.encode(unlabelled)]
    sink = connectors.open_sink("log", {"path": str(tmp_path / "samples.sqlite")})
    sink.write([Message(value) for value in values])
    sink.close()
    config = configured(
        tmp_path / "state",
        {"type": "log", "path": str(tmp_path / "samples.sqlite")},
        label_source={"type": "log", "path": str(tmp_path / "labels.sqlite")},
        pending={"record_answers": True},
        learner={"kernel": "torch"},
        serve={"enabled": True, "processes": 0, "port": port, "grpc_port": None},
    )
    life = forks.start("run", config)
    life.event("server.listening")
    life.until((tmp_path / "state" / "status.json").exists, "the first status")

    def status():
        return ask(port, "/status.json")

    life.until(lambda: status()["outcomes"]["learned"] == 50 and status()["waiting"]["label"] == 1, "the stream")
    features = msgspec.json.decode(held[5])
    question = {
        "id": "asked",
        "inputs": [{"name": "features", "shape": [1, 6], "datatype": "FP32", "data": features["features"]}],
    }
    answer = ask(port, "/v2/models/model/infer", question)
    life.until(lambda: status()["waiting"]["label"] == 2, "the answer's record")
    assert ask(port, "/v2/models/model/feedback", {"id": "asked", "label": features["label"]}) == {"accepted": 1}
    sink = connectors.open_sink("log", {"path": str(tmp_path / "labels.sqlite")})
    sink.write([Message(msgspec.json.encode({"id": "late", "label": label}))] * 2)
    sink.close()
    life.until(lambda: status()["outcomes"]["duplicate"] == 1 and status()["waiting"]["label"] == 0, "the labels")
    told = status()
    assert told["outcomes"]["joined"] == 2
    assert told["late"]["served_accuracy"] == float(answer["outputs"][0]["data"] == [features["label"]])
    assert sum(told["outcomes"].values()) + told["pending"] + sum(told["waiting"].values()) == 64
    life.stop()
    kept = json.loads(forks.run("inspect", tmp_path / "state", "--json").stdout)
    assert kept["positions"] == {"samples[0]": 61, "labels[0]": 2, "streamlearn-answers[0]": 1}
    assert kept["waiting"] == {"label": 0, "sample": 0, "joined_ids": 2, "joined": 2, "duplicate": 1}
