"""Questions from a topic: each is answered at least once, by one snapshot, under the name that its sender knows it by."""

import json
import os
import signal
import threading
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import connectors
from benchmarks.testbed.numbered import ALL, LABELS, numbered
from benchmarks.testbed.small import on_log
from benchmarks.testbed.waiting import DEADLINE_S, until
from connectors.log import LogSource
from streamlearn.errors import SinkError, SourceError
from streamlearn.records import Message, Record
from streamlearn.serving.counts import Counts
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.hosts import Followers
from streamlearn.serving.replies import replied
from streamlearn.serving.requests import InThread, Places, Requests, Saved, Telling
from streamlearn.serving.service import RequestsFrom, Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher, Reference

JSON_LENGTH = "inference-header-content-length"  # as clients write it


def endpoint(number=7, **limits):
    reference = Reference()
    reference.publish(numbered(number))
    return endpoint_of(reference, **limits)


def endpoint_of(current, **limits):
    return Endpoint(current, model_name="digits", settings=Settings(**limits))


def asked(value, *headers, key=b"k"):
    return Record("questions[2]", 41, value, key, tuple(headers))


def headers(message):
    return {name: value.decode() for name, value in message.headers}


def test_an_answer_is_that_of_http_and_bears_what_its_sender_knows_it_by():
    given = (("correlation-id", b"\x00\xff17"), ("kafka_correlationId", b"c"), ("traceparent", b"00-ab-cd-01"), ("other", b"x"))
    reply = replied(asked(json.dumps(ALL | {"id": "q"}).encode(), *given), endpoint(7))
    answer = json.loads(reply.value)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "7", "q")
    assert answer["outputs"][0]["data"] == ["7"]
    assert (reply.key, reply.headers[:3]) == (b"k", given[:3]), "byte for byte, and nothing else of it"
    rest = {name: value.decode() for name, value in reply.headers[3:]}
    assert rest == {"streamlearn-request": "questions[2]@41", "model-name": "digits", "model-version": "7", "status": "200"}


def test_rows_and_tensors_of_bytes_come_and_go_as_over_http():
    x = np.array([[0.5, 1.0], [2.0, -3.0]], "<f4")
    tensor = {"name": "features", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    reply = replied(asked(text + x.tobytes(), (JSON_LENGTH, str(len(text)).encode())), endpoint(7))
    length = int(headers(reply)[JSON_LENGTH])
    answer = json.loads(reply.value[:length])
    assert answer["outputs"][0]["shape"] == [2, LABELS]
    likely = np.exp(8.0)
    np.testing.assert_allclose(
        np.frombuffer(reply.value[length:], "<f4").reshape(2, LABELS)[:, 0], likely / (likely + LABELS - 1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("value", "more", "status", "message"),
    [
        (b"{", (), 400, "the body is not an inference request"),
        (None, (), 400, "the question has no value"),
        (b"x" * 2000, (), 400, "2000 bytes, expected an inference request of at most 1000 bytes"),
        (json.dumps({"inputs": []}).encode(), (), 400, "inputs: found none"),
        (json.dumps(ALL).encode(), ((JSON_LENGTH, b"-1"),), 400, "expected a number of bytes"),
    ],
)
def test_a_bad_question_gets_an_error_under_its_name(value, more, status, message):
    one = endpoint(7, max_body_bytes=1000)
    reply = replied(asked(value, ("correlation-id", b"c"), *more), one)
    assert message in json.loads(reply.value)["error"]
    assert (headers(reply)["status"], headers(reply)["correlation-id"]) == (str(status), "c")
    assert "model-version" not in headers(reply)
    assert one.counts.requests == {"400": 1}


def ask(path, n, first=0):
    """n questions in an embedded log, of which the correlation id says which it is."""
    sink = connectors.open_sink("log", {"path": str(path)})
    sink.write(
        [Message(json.dumps(ALL).encode(), None, (("correlation-id", str(i).encode()),)) for i in range(first, first + n)]
    )
    sink.close()


def replies(path):
    source = LogSource(LogSource.Settings(path=path))
    source.seek({})
    found = source.poll(10_000, 0.0)
    source.close()
    return [int(headers(each)["correlation-id"]) for each in found]


def on_logs(folder):
    """Where questions come from and go to, without a broker."""
    values = {"path": str(folder / "questions.sqlite")}, {"path": str(folder / "replies.sqlite")}
    return RequestsFrom(*values, positions=str(folder / "places.json"), connector="log", most=5)


@contextmanager
def in_thread(folder, current, told):
    running = InThread(Service("digits", Settings(), requests=told), current, tell=folder / "follower-9.json")
    running.start()
    try:
        yield running
    finally:
        running.stop(DEADLINE_S)


def test_they_wait_for_a_model_and_then_each_is_answered_once_also_across_a_stop(tmp_path):
    ask(tmp_path / "questions.sqlite", 12)
    reference = Reference()
    with in_thread(tmp_path, reference, on_logs(tmp_path)):
        reference.publish(numbered(1))
        until(lambda: (tmp_path / "replies.sqlite").exists() and len(replies(tmp_path / "replies.sqlite")) == 12, "the answers")
    ask(tmp_path / "questions.sqlite", 3, first=12)
    with in_thread(tmp_path, reference, on_logs(tmp_path)):
        until(lambda: len(replies(tmp_path / "replies.sqlite")) >= 15, "the others")
    assert replies(tmp_path / "replies.sqlite") == list(range(15)), "a stop answers what was taken, and saves where it was"
    counted = json.loads((tmp_path / "follower-9.json").read_bytes())
    assert counted.keys() == Counts().values(age_s=0.0).keys() | {"questions_waiting"}


class Fails:
    """A sink whose second flush fails after the messages arrived, as when an acknowledgement is lost."""

    flushes = 0

    def __init__(self, sink):
        self._sink = sink

    def write(self, messages):
        self._sink.write(messages)

    def flush(self, timeout_s):
        self._sink.flush(timeout_s)
        Fails.flushes += 1
        if Fails.flushes == 2:
            raise SinkError("no acknowledgement came")

    def close(self):
        self._sink.close()


def test_replies_that_were_not_confirmed_are_sent_again_and_none_is_left_out(tmp_path):
    ask(tmp_path / "questions.sqlite", 12)
    told, stop = on_logs(tmp_path), threading.Event()
    running = Requests(
        endpoint(), open_source=told.source, open_sink=lambda: Fails(told.sink()), places=Places(tmp_path / "p.json"), most=5
    )
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    until(lambda: (tmp_path / "replies.sqlite").exists() and len(replies(tmp_path / "replies.sqlite")) >= 17, "all of them")
    stop.set()
    thread.join(DEADLINE_S)
    assert replies(tmp_path / "replies.sqlite") == [*range(10), *range(5, 12)]


def test_a_stream_made_anew_under_its_name_is_answered_from_its_beginning():
    saved = Saved({"a[0]": 5, "a[1]": 7, "b[0]": 9}, {"a": "first", "b": "same"})
    assert saved.renewed({"a": "second", "b": "same"}) == {"a[0]": 0, "a[1]": 0}
    assert saved.renewed({"a": "first"}) == {}


def test_it_tells_what_it_would_answer_from_though_nobody_asks(tmp_path):
    ask(tmp_path / "questions.sqlite", 0)
    told, reference = tmp_path / "follower-9.json", Reference()
    reference.publish(numbered(1))
    with in_thread(tmp_path, reference, on_logs(tmp_path)):
        for number in (1, 2):
            reference.publish(numbered(number))
            until(
                lambda number=number: told.exists() and json.loads(told.read_bytes())["served_number"] == number, "the newest"
            )
    assert json.loads(told.read_bytes())["questions_waiting"] == 0


def test_it_tells_while_its_upstream_is_lost(tmp_path):
    told, reference = tmp_path / "follower-1.json", Reference()
    reference.publish(numbered(1))

    def lost():
        raise SourceError("no broker")

    running = endpoint_of(reference)
    asking = Requests(
        running,
        open_source=lost,
        open_sink=lost,
        places=Places(tmp_path / "at"),
        most=1,
        tell=Telling(running, reference, told),
    )
    stop = threading.Event()
    thread = threading.Thread(target=asking.run, args=(stop,))
    thread.start()
    try:
        until(told.exists, "its file")
    finally:
        stop.set()
        thread.join()
    counts = json.loads(told.read_bytes())
    assert (counts["served_number"], counts["questions_waiting"]) == (1, None)


def test_a_damaged_file_of_positions_is_refused(tmp_path):
    (tmp_path / "places.json").write_bytes(b"{")
    with pytest.raises(Exception, match=r"places.json cannot be read .* delete it to begin anew"):
        Places(tmp_path / "places.json").read()


QUESTION = json.dumps(ALL).encode()


class Asker:
    """Sends questions through Kafka, and remembers which were answered, and how often."""

    def __init__(self, kafka, questions, answers):
        from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # noqa: PLC0415 - where there is a broker alone

        self.topics = questions, answers
        self._producer = KafkaProducer(bootstrap_servers=kafka)
        self._consumer = KafkaConsumer(bootstrap_servers=kafka)
        self._consumer.assign([TopicPartition(answers, 0)])
        self._consumer.seek_to_beginning()
        self.asked, self.replies = {}, {}

    def ask(self, value=QUESTION):
        name = uuid.uuid4().hex
        self.asked[name] = value
        self._producer.send(self.topics[0], value, headers=[("correlation-id", name.encode())])
        return name

    def all_answered(self):
        self._producer.flush()
        for records in self._consumer.poll(timeout_ms=100).values():
            for record in records:
                found = {name: value.decode() for name, value in record.headers}
                self.replies.setdefault(found["correlation-id"], []).append((found, json.loads(record.value)))
        return self.replies.keys() == self.asked.keys()

    def close(self):
        self._producer.close()
        self._consumer.close()


@pytest.fixture
def asker(kafka, kafka_topic):
    made = Asker(kafka, kafka_topic(2), kafka_topic())
    yield made
    made.close()


def served(kafka, asker, state):
    """Keys of `serve.kafka` as a service takes them."""
    asked = {"bootstrap_servers": kafka, "topics": [asker.topics[0]], "start": "earliest", "on_gap": "skip"}
    replies = {"bootstrap_servers": kafka, "topic": asker.topics[1]}
    return RequestsFrom(asked, replies, positions=str(state / "questions.json"), most=20)


def assert_right(replies):
    """Every reply is of one snapshot, and says which."""
    for found, answer in replies:
        version = int(answer["model_version"])
        assert (found["status"], found["model-version"], found["model-name"]) == ("200", str(version), "digits")
        label, probabilities, labels = (output["data"] for output in answer["outputs"])
        power = np.exp(1.0 + version % 97)
        assert label == [str(version)]
        assert labels == [str(version + i) for i in range(LABELS)]
        assert probabilities[0] == pytest.approx(power / (power + LABELS - 1), rel=1e-5)


def test_each_question_is_answered_though_its_process_is_killed_again_and_again(kafka, asker, tmp_path):
    live = tmp_path / "live"
    publisher = FilePublisher(live)
    publisher.publish(numbered(1))
    host = Followers(Service("digits", Settings(port=0), requests=served(kafka, asker, tmp_path)), folder=live)
    host.start()
    try:
        bad = asker.ask(b"no question")
        for kill in range(4):
            for _ in range(300):
                asker.ask()
            publisher.publish(numbered(kill + 2))
            answered = len(asker.replies)
            until(lambda at=answered + 50: asker.all_answered() or len(asker.replies) >= at, "some answers")
            os.kill(next(pid for pid in host.pids if b"serving.requests" in command(pid)), signal.SIGKILL)
        until(asker.all_answered, "all answers")
        assert host.restarts == 4
    finally:
        host.stop(DEADLINE_S)
    ((found, answer),) = asker.replies.pop(bad)[:1]
    assert (found["status"], "not an inference request" in answer["error"]) == ("400", True)
    for replies in asker.replies.values():
        assert_right(replies)
        places = {found["streamlearn-request"] for found, _ in replies}
        assert len(places) == 1, "a reply that comes twice says that it is the same one"
    assert len({replies[0][1]["model_version"] for replies in asker.replies.values()}) > 1, "the model changed meanwhile"


def command(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_daemon_answers_them_and_goes_on_after_it_was_killed(kafka, asker, forks, tmp_path):
    keys = {"requests": [asker.topics[0]], "replies": asker.topics[1], "bootstrap_servers": kafka, "start": "earliest"}
    serve = {"enabled": True, "processes": 1, "port": 0, "kafka": keys}
    config, _ = on_log(tmp_path, 50, serve=serve, name="small")
    features = {"name": "features", "shape": [1, 6], "datatype": "FP32", "data": [0.0] * 6}
    question = json.dumps({"inputs": [features]}).encode()
    for kill in range(2):
        life = forks.start("run", config)
        for _ in range(30):
            asker.ask(question)
        life.until(asker.all_answered, "all answers")
        if kill == 0:
            life.kill()
            asker.ask(question)
    life.stop()
    for replies in asker.replies.values():
        (found, answer), *_ = replies
        assert found["model-version"] == answer["model_version"] == "5"
        assert answer["outputs"][0]["data"][0] in {"00", "01", "10", "11"}
