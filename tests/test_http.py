"""The HTTP face, without a socket: what each path answers, and that no answer mixes two snapshots."""

import asyncio
import json
import threading
from contextlib import nullcontext

import httpx
import numpy as np
import pytest
import structlog
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamlearn.decode.fields import Rules
from streamlearn.decode.json import JsonDecoder
from streamlearn.errors import ConfigError, DecodeError, SinkError
from streamlearn.records import Answering, Message, Record, Snapshot
from streamlearn.serving.access import is_loopback
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.http import Application
from streamlearn.serving.settings import Settings
from streamlearn.settings import read
from streamlearn.snapshot import Reference

INFER = "/v2/models/digits/infer"
SAMPLES = "/v2/models/digits/samples"


def numbered(number, labels=50):
    """A snapshot whose every answer tells its number: as the label, and as the first probability."""
    arrays = {"number": np.array([number])}
    return Snapshot(number, Answering("told", arrays, {}), tuple(range(number, number + labels)), (2,), 0)


def unheard_of(number):
    """A snapshot that no server of ours can answer from."""
    return Snapshot(number, Answering("unheard of", {}, {}), (1,), (2,), 0)


def told(arrays, settings, x):
    """The first label, with a probability that depends on the number alone."""
    logits = np.zeros((len(x), 50), np.float32)
    logits[:, 0] = 1 + arrays["number"][0] % 97
    return logits


def application(reference, **changes):
    limits = {name: changes.pop(name) for name in list(changes) if name in Settings.model_fields}
    own = {name: changes.pop(name) for name in ("samples", "repository", "status") if name in changes}
    chosen = {"model_name": "digits", "settings": Settings(**limits), "forms": {"told": told}.__getitem__} | changes
    return Application(Endpoint(reference, **chosen), **own)


def ask(app, *requests):
    """Answers to requests (method, path, keyword arguments) made one after the other."""

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.request(method, path, **rest) for method, path, rest in requests]

    return asyncio.run(run())


def get(app, path):
    return ask(app, ("GET", path, {}))[0]


def post(app, path, content, **headers):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(app, ("POST", path, {"content": content, "headers": headers}))[0]


def rows(*values, **more):
    return more | {"inputs": [{"name": "features", "shape": [len(values), 2], "datatype": "FP32", "data": list(values)}]}


def answering(number=7, learner_clock=None, **changes):
    reference = Reference() if learner_clock is None else Reference(learner_clock)
    reference.publish(numbered(number))
    return application(reference, **changes)


def test_an_answer_has_the_number_and_the_label_of_one_snapshot():
    answer = post(answering(7), INFER, rows([1, 2], [3, 4], id="q", outputs=[{"name": "label"}, {"name": "probabilities"}]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert (found["model_name"], found["model_version"], found["id"]) == ("digits", "7", "q")
    assert found["outputs"][0]["data"] == ["7", "7"]
    assert found["outputs"][1]["data"][0] == pytest.approx(np.e**8 / (np.e**8 + 49), rel=1e-6)


def test_a_binary_question_gets_a_binary_answer():
    tensor = np.array([[1, 2]], "<f4").tobytes()
    given = rows([1, 2], parameters={"binary_data_output": True})
    del given["inputs"][0]["data"]
    given["inputs"][0]["parameters"] = {"binary_data_size": len(tensor)}
    text = json.dumps(given).encode()
    answer = post(answering(7), INFER, text + tensor, **{"Inference-Header-Content-Length": str(len(text))})
    size = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert json.loads(answer.content[:size])["outputs"][0]["parameters"]["binary_data_size"] == 5
    assert answer.content[size:] == b"\x01\0\0\x007"


@pytest.mark.parametrize("length", ["x", "-1", "", "9" * 30, "1e3", "\u0663"])
def test_a_length_that_is_no_number_is_refused(length):
    answer = post(answering(), INFER, rows([1, 2]), **{"Inference-Header-Content-Length": length.encode()})
    assert answer.status_code == 400
    assert "expected a number of bytes" in answer.json()["error"]


@pytest.mark.parametrize("prefix", ["/v2/models/digits", "/v2/models/digits/versions/7"])
def test_a_model_is_found_by_its_name_and_by_its_current_number(prefix):
    app = answering(7)
    assert get(app, prefix).json()["versions"] == ["7"]
    assert get(app, prefix + "/ready").json() == {"name": "digits", "ready": True}
    assert post(app, prefix + "/infer", rows([1, 2])).json()["model_version"] == "7"


@pytest.mark.parametrize("prefix", ["/v2/models/other", "/v2/models/digits/versions/6", "/v2/models/digits/versions/07"])
def test_another_model_or_number_is_not_found(prefix):
    app = answering(7)
    answers = [get(app, prefix), get(app, prefix + "/ready"), post(app, prefix + "/infer", rows([1, 2]))]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert all("not known" in answer.json()["error"] or "not served" in answer.json()["error"] for answer in answers)


def test_a_path_or_method_that_is_not_there_is_an_error_in_json():
    app = answering()
    assert (get(app, "/v3").status_code, get(app, INFER).status_code) == (404, 405)
    assert "no such path" in get(app, "/v3").json()["error"]
    assert "method" in get(app, INFER).json()["error"]
    assert get(app, INFER).headers["allow"] == "POST"


def test_the_server_names_itself_and_its_extensions():
    found = get(answering(), "/v2").json()
    assert (found["name"], found["extensions"]) == ("streamlearn", ["binary_tensor_data"])
    assert get(answering(samples=list), "/v2/").json()["extensions"] == ["binary_tensor_data", "samples", "feedback"]


def test_before_the_first_snapshot_it_lives_but_is_not_ready():
    app = application(Reference())
    assert (get(app, "/v2/health/live").status_code, get(app, "/v2/health/live").json()) == (
        200,
        {"live": True, "ready": False},
    )
    ready = get(app, "/v2/health/ready")
    assert (ready.status_code, ready.json()["ready"], ready.json()["live"]) == (503, False, True)
    for answer in (get(app, "/v2/models/digits"), post(app, INFER, rows([1, 2]))):
        assert (answer.status_code, answer.json()["error"]) == (503, "no snapshot is published yet")
        assert answer.headers["retry-after"] == "1"
    assert get(app, "/v2/models/digits/ready").status_code == 503


def test_before_the_first_label_the_server_is_ready_and_the_model_is_not():
    reference = Reference()
    reference.publish(numbered(0, labels=0))
    app = application(reference)
    assert get(app, "/v2/health/ready").json() == {"live": True, "ready": True}
    assert get(app, "/v2/models/digits/ready").status_code == 503
    answer = post(app, INFER, rows([1, 2]))
    assert (answer.status_code, answer.json()["error"]) == (503, "no label learned yet")


def test_a_learner_that_went_silent_makes_the_server_not_ready_but_it_still_answers():
    now = [0.0]
    app = answering(learner_clock=lambda: now[0], silent_s=30.0)
    now[0] = 29.0
    assert get(app, "/v2/health/ready").status_code == 200
    now[0] = 31.0
    assert get(app, "/v2/health/ready").json()["error"] == "the learner has been silent for 31 s"
    assert get(app, "/v2/models/digits/ready").status_code == 503
    assert post(app, INFER, rows([1, 2])).status_code == 200


@pytest.mark.parametrize(("told", "is_stalled"), [({}, True), ({"stalled_s": None}, False), ({"beside_learner": False}, False)])
def test_a_learner_that_stalled_makes_the_server_beside_it_not_live(told, is_stalled):
    """A server elsewhere lives on: to start that one again would help nobody."""
    now = [0.0]
    app = answering(learner_clock=lambda: now[0], **{"stalled_s": 60.0, "beside_learner": True} | told)
    now[0] = 59.0
    assert (get(app, "/v2/health/live").status_code, get(app, "/v2/health/ready").status_code) == (200, 503)
    now[0] = 61.0
    live, ready = get(app, "/v2/health/live"), get(app, "/v2/health/ready")
    assert (live.status_code, ready.status_code) == (503 if is_stalled else 200, 503)
    assert live.json()["live"] == ready.json()["live"] == (not is_stalled)
    assert live.json().get("error") == ("the learner has been silent for 61 s" if is_stalled else None)
    assert post(app, INFER, rows([1, 2])).status_code == 200


def test_a_server_may_not_be_started_again_before_it_is_spared():
    with pytest.raises(ConfigError, match="stalled_s is 10: expected silent_s, 30, or more"):
        read(Settings, {"stalled_s": 10}, path="serve")


def test_a_learner_never_heard_of_has_not_stalled():
    app = application(Reference(), beside_learner=True)
    assert get(app, "/v2/health/live").json() == {"live": True, "ready": False}


def test_a_server_that_closes_is_not_ready_but_still_answers():
    app = answering()
    app.endpoint.draining = True
    assert get(app, "/v2/health/ready").status_code == 503
    assert get(app, "/v2/health/live").status_code == 200
    assert post(app, INFER, rows([1, 2])).status_code == 200


def test_a_snapshot_that_cannot_answer_is_counted_and_the_one_before_it_stays():
    reference = Reference()
    app = application(reference)
    reference.publish(numbered(1))
    assert post(app, INFER, rows([1, 2])).json()["model_version"] == "1"
    reference.publish(unheard_of(2))
    assert post(app, INFER, rows([1, 2])).json()["model_version"] == "1"
    assert post(app, INFER, rows([1, 2])).status_code == 200
    assert (app.endpoint.counts.failed_loads, app.endpoint.counts.served_number) == (1, 1)
    assert get(app, "/v2/health/ready").json() == {"live": True, "ready": True}


def test_a_server_that_refused_all_there_is_says_so_and_is_not_ready_until_it_has_a_model():
    reference = Reference()
    app = application(reference)
    reference.publish(unheard_of(1))
    for answer in (get(app, "/v2/health/ready"), get(app, "/v2/models/digits"), post(app, INFER, rows([1, 2]))):
        assert answer.status_code == 503
        assert answer.json()["error"] == "the snapshot that is published was refused: the log of this server says why"
    assert get(app, "/v2/health/live").status_code == 200, "to start it again would help nobody"
    reference.publish(numbered(2))
    assert get(app, "/v2/health/ready").json() == {"live": True, "ready": True}
    reference.publish(unheard_of(3))
    assert get(app, "/v2/health/ready").json() == {"live": True, "ready": True}


def test_refusals_one_after_another_are_one_line_of_the_log_and_their_end_is_another():
    reference = Reference()
    app = application(reference)
    with structlog.testing.capture_logs() as said:
        for snapshot in (numbered(1), unheard_of(2), unheard_of(3), unheard_of(4), numbered(5), unheard_of(6)):
            reference.publish(snapshot)
            app.served()
    told = [line for line in said if line["log_level"] != "debug"]
    assert [(line["event"], line["log_level"], line["serving"]) for line in told] == [
        ("snapshot.refused", "warning", 1),
        ("snapshot.taken_again", "info", 5),
        ("snapshot.refused", "warning", 5),
    ]
    assert told[1]["refused"] == 3
    assert app.endpoint.counts.failed_loads == 4


def test_a_body_beyond_its_bound_is_refused_whether_or_not_it_says_its_length():
    app = answering(max_body_bytes=1000)
    whole = post(app, INFER, b" " * 1001)

    async def chunks():
        for _ in range(11):
            yield b" " * 100

    pieces = ask(app, ("POST", INFER, {"content": chunks()}))[0]
    for answer in (whole, pieces):
        assert answer.status_code == 413
        assert "larger than 1000 bytes" in answer.json()["error"]
    assert post(app, INFER, json.dumps(rows([1, 2])).encode().ljust(1000)).status_code == 200


def test_rows_beyond_their_bound_are_refused():
    app = answering(max_rows=2)
    assert post(app, INFER, rows([1, 2], [3, 4])).status_code == 200
    assert "expected 1 to 2" in post(app, INFER, rows(*[[1, 2]] * 3)).json()["error"]


def test_a_body_that_does_not_come_is_not_waited_for():
    async def never():
        yield b"{"
        await asyncio.Event().wait()

    answer = ask(answering(body_timeout_s=0.05), ("POST", INFER, {"content": never()}))[0]
    assert answer.status_code == 408


def test_above_its_bound_of_requests_it_answers_503_at_once_and_recovers():
    app = answering(max_in_progress=3)

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            together = await asyncio.gather(*(client.post(INFER, json=rows([1, 2])) for _ in range(10)))
            return together, await client.post(INFER, json=rows([1, 2]))

    together, after = asyncio.run(run())
    refused = [answer for answer in together if answer.status_code == 503]
    assert (len(refused), len(together) - len(refused)) == (7, 3)
    assert all(answer.headers["retry-after"] == "1" and "overloaded" in answer.json()["error"] for answer in refused)
    assert after.status_code == 200
    assert app.endpoint.counts.requests == {"200": 4, "503": 7}


@pytest.mark.parametrize("came", [[], [{"type": "http.request", "body": b"{", "more_body": True}]], ids=["nothing", "half"])
def test_a_client_that_goes_away_before_its_body_came_is_no_fault_of_anybody(came):
    app = answering()

    async def run():
        events = iter([*came, {"type": "http.disconnect"}])

        async def receive():
            return next(events)

        async def send(event):
            pass

        await app({"type": "http", "method": "POST", "path": INFER, "headers": []}, receive, send)

    asyncio.run(run())
    assert app.endpoint.counts.requests == {"499": 1}


def test_requests_are_counted_by_status_and_time():
    ticks = iter([0.0, 0.0003, 1.0, 1.02, 5.0, 9.0])
    app = answering(clock=lambda: next(ticks))
    for content in (rows([1, 2], [3, 4]), rows([1, 2]), b"junk"):
        post(app, INFER, content)
    found = app.endpoint.counts.values(age_s=float("inf"))
    assert found["requests"] == {"200": 2, "400": 1}
    assert found["rows"] == 3
    assert found["seconds"]["sum"] == pytest.approx(4.0203)
    within = dict(zip([*found["seconds"]["buckets"], "more"], found["seconds"]["counts"], strict=True))
    assert {bound for bound, count in within.items() if count} == {0.0005, 0.025, "more"}
    assert (found["served_number"], found["age_seconds"]) == (7, None)
    assert json.loads(json.dumps(found)) == found


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["Inference-Header-Content-Length", "Content-Type"]), st.text("0123456789abc/", max_size=4)))  # fmt: skip  # noqa: E501 - one strategy a line
def test_no_body_makes_the_server_fail(noise, headers):
    assume(b'"inputs"' not in noise and b'"features"' not in noise)  # hypothesis also tries literals of this file
    answer = post(APP, INFER, noise, **headers)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert post(APP, SAMPLES, noise).status_code == 400


WRITTEN: list[Message] = []
TOKEN = "geheim-und-lang-genug"  # noqa: S105 - of these tests
APP = answering(samples=WRITTEN.extend)


def assert_of_one_snapshot(answer):
    version = int(answer.json()["model_version"])
    label, probabilities, labels = (output["data"] for output in answer.json()["outputs"])
    assert label == [str(version)]
    assert labels == [str(version + i) for i in range(50)]
    power = np.exp(1.0 + version % 97)
    assert probabilities[0] == pytest.approx(power / (power + 49), rel=1e-5)
    return version


ALL = rows([1, 2], outputs=[{"name": name} for name in ("label", "probabilities", "labels")])


def test_a_snapshot_published_while_an_answer_is_computed_has_no_part_in_it():
    reference = Reference()
    reference.publish(numbered(1))
    newest = [1]

    def told_and_outdated(arrays, settings, x):
        newest[0] += 1
        reference.publish(numbered(newest[0]))
        return told(arrays, settings, x)

    app = application(reference, forms={"told": told_and_outdated}.__getitem__)
    versions = [assert_of_one_snapshot(post(app, INFER, ALL)) for _ in range(5)]
    assert versions[-1] < newest[0]


def test_no_answer_mixes_two_snapshots_while_they_change_and_no_request_fails():
    reference = Reference()
    reference.publish(numbered(0))
    app = application(reference)
    done = threading.Event()

    def publish():
        number = 0
        while not done.is_set():
            number += 1
            reference.publish(numbered(number))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        answers = ask(app, *[("POST", INFER, {"json": ALL})] * 500)
    finally:
        done.set()
        publisher.join()
    assert {answer.status_code for answer in answers} == {200}
    versions = [assert_of_one_snapshot(answer) for answer in answers]
    assert versions == sorted(versions)
    assert len(set(versions)) > 5


def sample(**changes):
    return {"features": [1, 2.5], "label": "cat"} | changes


def test_samples_are_written_as_they_came_before_they_are_acknowledged():
    written = []
    app = answering(samples=written.extend)
    raw = b'[ {"features":[1,2.50],"label":"cat","id":"a"} ,{"label":7,"features":[[3],4]}]'
    assert post(app, SAMPLES, raw).status_code == 400
    assert written == []
    raw = raw.replace(b"[[3],4]", b"[3,4]")
    answer = post(app, SAMPLES, raw)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    assert [(message.value, message.key) for message in written] == [
        (b'{"features":[1,2.50],"label":"cat","id":"a"}', b"a"),
        (b'{"label":7,"features":[3,4]}', None),
    ]
    assert all(dict(message.headers) == {"content-type": b"application/json"} for message in written)
    assert post(app, SAMPLES, sample(time=1_700_000_000_000, context=-3, id=5, colour="red")).json() == {"accepted": 1}
    assert app.endpoint.counts.samples == 3


BAD = [
    *(sample(features=features) for features in ([1], [1, 2, 3], [[1, 2]], [1, "2"], [1, True], [1, 1e39], None, "12")),
    *(sample(label=label) for label in (None, 1.5, True, [1], 2**63, "", "x" * 1025)),
    *(sample(**changes) for changes in ({"id": ""}, {"id": 1.5}, {"context": 0.5}, {"time": "2026-01-01"}, {"time": 1.5})),
    *({"features": [1, 2]}, {"features": [1, 2], "id": None}, {"label": 1}),
    *([], [[]], 5, [sample(), 5], [sample()] * 2000),
]


NUMBERS = st.integers(-(2**65), 2**65) | st.floats() | st.sampled_from([2**63 - 1, 2**63, -(2**63), 3e38, 4e38])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.sampled_from(["x" * 1024, "x" * 1025])
VALUES = (
    SCALARS
    | st.lists(NUMBERS, min_size=1, max_size=3)
    | st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["features", "label", "id", "time", "context", "colour"]), VALUES)
def test_a_sample_is_refused_here_if_and_only_if_the_stream_would_refuse_it(field, value):
    """But that a label that is null is refused here alone: it is left out where it comes later."""
    each = json.dumps(sample(**{field: value})).encode()
    refused = post(APP, SAMPLES, each).status_code == 400
    if field == "label" and value is None:
        assert refused
        return
    with pytest.raises(DecodeError) if refused else nullcontext():
        JsonDecoder(Rules((2,), 1 << 20)).decode(Record("log[0]", 0, each), np.zeros(2, np.float32))


@pytest.mark.parametrize("given", BAD)
def test_samples_that_the_stream_would_refuse_are_refused_and_none_of_them_is_written(given):
    written = []
    answer = post(answering(samples=written.extend), SAMPLES, given)
    assert answer.status_code == 400
    assert written == []


def test_a_sample_whose_label_comes_later_is_taken_by_its_id():
    written = []
    app = answering(samples=written.extend)
    assert post(app, SAMPLES, {"features": [1, 2], "id": "a"}).json() == {"accepted": 1}
    found = JsonDecoder(Rules((2,), 1 << 20)).decode(Record("log[0]", 0, written[0].value), np.zeros(2, np.float32))
    assert (found.id, found.label) == ("a", None)
    assert "neither a label nor an id" in post(app, SAMPLES, {"features": [1, 2]}).json()["error"]


def test_the_refusal_of_a_sample_says_which_one_it_is():
    assert "sample 1: " in post(APP, SAMPLES, [sample(), sample(label=None)]).json()["error"]


def test_samples_without_somewhere_to_write_them_are_not_implemented():
    assert post(answering(), SAMPLES, sample()).status_code == 501


def test_samples_that_could_not_be_made_durable_are_not_acknowledged():
    def broken(messages):
        raise SinkError("disk is full: /secret/place")

    answer = post(answering(samples=broken), SAMPLES, sample())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "secret" not in answer.text


def test_samples_need_the_token_where_there_is_one():
    app = answering(samples=WRITTEN.extend, token=TOKEN)
    statuses = [post(app, SAMPLES, sample(), **headers).status_code for headers in (
        {}, {"Authorization": "Bearer geheim"}, {"Authorization": "geheim-und-lang-genug"}, {"Authorization": b"Bearer \xff"},
        {"Authorization": "Bearer geheim-und-lang-genug"}, {"Authorization": "Bearer geheim-und-lang-genug", "Origin": "http://127.0.0.1:8080"},
    )]  # fmt: skip
    assert statuses == [401, 401, 401, 401, 200, 200]
    assert post(app, INFER, rows([1, 2])).status_code == 200, "asking needs no token"


def test_without_a_token_samples_come_from_this_machine_and_from_no_web_page():
    assert post(answering(samples=WRITTEN.extend), SAMPLES, sample(), Origin="http://evil.example").status_code == 403
    assert post(answering(samples=WRITTEN.extend, host="0.0.0.0"), SAMPLES, sample()).status_code == 401  # noqa: S104
    assert post(answering(samples=WRITTEN.extend, host="::1"), SAMPLES, sample()).status_code == 200


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("::", False), ("0.0.0.0", False), ("example.org", False)])  # fmt: skip  # noqa: E501, S104 - a table
def test_loopback_is_told_from_wider_addresses(host, expected):
    assert is_loopback(host) is expected


def test_a_token_is_never_shown():
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_the_status_is_what_the_learner_wrote():
    status = [None]
    app = answering(status=lambda: status[0])
    assert get(app, "/status.json").status_code == 503
    status[0] = b'{"number":1}'
    assert get(app, "/status.json").json() == {"number": 1}
    assert get(app, "/status.json").headers["cache-control"] == "no-store"


def test_the_page_loads_nothing_from_elsewhere():
    for path, kind in {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"}.items():
        answer = get(answering(), path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_fault_of_the_program_is_an_error_in_json_without_its_details():
    def broken():
        raise RuntimeError("secret")

    answer = get(answering(status=broken), "/status.json")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "error" in answer.json()
