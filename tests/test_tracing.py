"""A question's trace goes to its answer, whatever protocol; spans of OpenTelemetry where they are wanted, nothing otherwise."""

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.testbed.numbered import ALL, numbered
from benchmarks.testbed.waiting import DEADLINE_S, until
from streamlearn.errors import ConfigError, SinkError
from streamlearn.serving import http as http_face
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.hosts import Followers
from streamlearn.serving.replies import replied
from streamlearn.serving.service import Service
from streamlearn.serving.settings import Settings
from streamlearn.settings import read
from streamlearn.snapshot import FilePublisher, Reference
from tests.test_http import INFER, SAMPLES, answering, ask, post, rows
from tests.test_logs import TRACE, _as_it_was, lines, of
from tests.test_requests import asked, endpoint, headers

__all__ = ["_as_it_was"]

sdk = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="the extra `otel` is not installed")
TRACE_ID, SPAN_ID = int(TRACE[3:35], 16), int(TRACE[36:52], 16)


class Traced:
    """Spans kept in memory."""

    def __init__(self) -> None:
        from streamlearn.serving.tracing import Tracing  # noqa: PLC0415  after the skip

        self.kept = sdk.InMemorySpanExporter()
        self.spans = Tracing("digits", self.kept)

    @property
    def told(self) -> list[Any]:
        return list(self.kept.get_finished_spans())


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (INFER, rows([1, 2])),
        (INFER, {"inputs": []}),
        (INFER, b"\xff"),
        ("/v2/models/other/infer", rows([1, 2])),
        ("/none", b""),
    ],
)
def test_an_answer_over_http_bears_the_trace_of_its_request_also_when_it_is_refused(path: str, content: Any) -> None:
    answer = post(answering(7), path, content, traceparent=TRACE)
    assert answer.headers.get_list("traceparent") == [TRACE]
    assert "traceparent" not in post(answering(7), path, content).headers
    assert "traceparent" not in post(answering(7), path, content, traceparent="00-zz").headers


def test_of_two_traces_a_request_has_none() -> None:
    told = {"content": json.dumps(rows([1, 2])), "headers": [("traceparent", TRACE), ("traceparent", TRACE)]}
    assert "traceparent" not in ask(answering(7), ("POST", INFER, told))[0].headers


def test_posted_samples_become_records_of_the_same_trace() -> None:
    written: list[Any] = []
    sample = {"features": [1, 2], "label": 3}
    assert post(answering(samples=written.extend), SAMPLES, sample, traceparent=TRACE).status_code == 200
    assert post(answering(samples=written.extend), SAMPLES, sample).status_code == 200
    first, second = (dict(each.headers) for each in written)
    assert first.pop("traceparent") == TRACE.encode()
    assert first == second == {"content-type": b"application/json"}


def test_log_lines_of_a_request_bear_its_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise SinkError("the disk is full")

    http_face.logs.configure()
    sample = {"features": [1, 2], "label": 3}
    assert post(answering(samples=broken), SAMPLES, sample, traceparent=TRACE).status_code == 503
    monkeypatch.setattr(http_face, "read_question", lambda *_, **__: 1 / 0)
    failing = post(answering(7), INFER, rows([1, 2]), traceparent=TRACE)
    assert (failing.status_code, failing.headers["traceparent"]) == (500, TRACE)
    found = lines(capsys.readouterr().err)
    assert of("samples.not_written", found)[0]["traceparent"] == TRACE
    failed = of("request.failed", found)[0]
    assert (failed["traceparent"], failed["path"]) == (TRACE, INFER)
    assert "ZeroDivisionError" in failed["exception"]


def test_an_answer_over_grpc_bears_the_trace_of_its_request() -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed: the extra `grpc`")
    from streamlearn.serving.grpc import GrpcServer  # noqa: PLC0415  after the skip
    from streamlearn.serving.grpc_messages import MESSAGES  # noqa: PLC0415

    traced = Traced()

    async def asked_for(**told: Any) -> list[Any]:
        reference = Reference()
        reference.publish(numbered(7))
        made = Endpoint(reference, model_name="digits", settings=Settings(), spans=traced.spans)
        server = GrpcServer(made, "127.0.0.1:0")
        await server.start()
        found = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
                response_deserializer=MESSAGES["ModelInferResponse"].FromString,
            )
            question = MESSAGES["ModelInferRequest"](model_name="digits")
            tensor = question.inputs.add(name="features", datatype="FP32", shape=[1, 2])
            tensor.contents.fp32_contents.extend([1, 2])
            for name, metadata in (("digits", (("traceparent", TRACE),)), ("other", (("traceparent", TRACE),)), ("digits", ())):
                question.model_name = name
                running = call(question, metadata=metadata)
                try:
                    await running
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.NOT_FOUND
                found.append(dict(await running.trailing_metadata() or ()).get("traceparent"))
        await server.stop(1.0)
        return found

    assert asyncio.run(asked_for()) == [TRACE, TRACE, None]
    first, second, third = traced.told
    assert (first.parent.span_id, second.parent.span_id, third.parent) == (SPAN_ID, SPAN_ID, None)
    assert [each.attributes["network.protocol.name"] for each in traced.told] == ["grpc"] * 3


def test_a_span_lasts_from_a_request_to_its_answer_and_continues_its_trace() -> None:
    traced = Traced()
    app = answering(7, spans=traced.spans)
    assert post(app, INFER, rows([1, 2], [3, 4]), traceparent=TRACE).headers["traceparent"] == TRACE
    assert post(app, INFER, {"inputs": []}, traceparent=TRACE).status_code == 400
    assert post(app, INFER, rows([1, 2])).status_code == 200
    right, wrong, alone = traced.told
    assert (right.context.trace_id, right.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert dict(right.attributes) == {
        "streamlearn.model": "digits",
        "streamlearn.model_version": 7,
        "streamlearn.rows": 2,
        "network.protocol.name": "http",
        "http.response.status_code": 200,
    }
    assert right.start_time <= right.end_time
    assert wrong.attributes["http.response.status_code"] == 400
    assert wrong.status.is_unset, "a wrong question is no error of the server"
    assert (alone.parent, alone.context.trace_id != TRACE_ID) == (None, True)


def test_a_failure_is_a_span_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced()
    monkeypatch.setattr(http_face, "read_question", lambda *_, **__: 1 / 0)
    assert post(answering(7, spans=traced.spans), INFER, rows([1, 2])).status_code == 500
    (span,) = traced.told
    assert (span.attributes["http.response.status_code"], span.status.status_code.name) == (500, "ERROR")


def test_a_question_that_nobody_waits_for_any_more_is_no_error() -> None:
    traced = Traced()
    with pytest.raises(asyncio.CancelledError), traced.spans.span("grpc", None):
        raise asyncio.CancelledError
    (span,) = traced.told
    assert (span.attributes["http.response.status_code"], span.status.is_unset) == (499, True)


def test_spans_of_requests_at_once_are_not_mixed() -> None:
    traced = Traced()
    app = answering(7, spans=traced.spans)
    traces = [f"00-{i:032x}-{i:016x}-01" for i in range(1, 30)]

    async def run() -> None:
        import httpx  # noqa: PLC0415  beside its one use

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = json.dumps(rows([1, 2]))
            answers = await asyncio.gather(*(client.post(INFER, content=body, headers={"traceparent": t}) for t in traces))
        assert [answer.headers["traceparent"] for answer in answers] == traces

    asyncio.run(run())
    assert sorted(each.context.trace_id for each in traced.told) == list(range(1, 30))
    assert all(each.parent.span_id == each.context.trace_id for each in traced.told)


def test_a_question_over_kafka_has_its_span_too() -> None:
    traced, reference = Traced(), Reference()
    reference.publish(numbered(7))
    made = Endpoint(reference, model_name="digits", settings=Settings(), spans=traced.spans)
    reply = replied(asked(json.dumps(ALL).encode(), ("traceparent", TRACE.encode())), made)
    assert headers(reply)["traceparent"] == TRACE
    (span,) = traced.told
    assert (span.parent.span_id, span.attributes["network.protocol.name"]) == (SPAN_ID, "kafka")
    assert span.attributes["streamlearn.model_version"] == 7


def test_without_a_wish_nothing_of_opentelemetry_is_loaded() -> None:
    code = "import streamlearn.serving.follower, sys; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert headers(replied(asked(json.dumps(ALL).encode()), endpoint(7)))["status"] == "200"


def test_a_wish_without_the_package_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlearn.serving.settings.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"otel is true, but OpenTelemetry is not installed: pip install 'streamlearn\[otel\]'"
    ):
        read(Settings, {"otel": True}, path="serve")


def test_a_follower_sends_its_spans_where_the_environment_says(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process, and OTLP over real HTTP to a collector of this test."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: PLC0415

    came: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told = {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "COMPRESSION": "none"}
    for name, value in told.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    live = tmp_path / "live"
    FilePublisher(live).publish(numbered(7))
    host = Followers(Service("digits", Settings(port=0, otel=True)), folder=live)
    try:
        host.start()
        request = urllib.request.Request(
            f"http://127.0.0.1:{host.port}{INFER}", json.dumps(ALL).encode(), {"traceparent": TRACE}
        )

        def answered() -> bool:
            with urllib.request.urlopen(request) as answer:
                return bool(answer.headers["traceparent"] == TRACE)

        until(answered, "an answer")
        until(lambda: came, "a span")
    finally:
        host.stop(DEADLINE_S)
        server.shutdown()
        thread.join()
        server.server_close()
    spans = came[0].resource_spans[0]
    assert spans.scope_spans[0].spans[0].trace_id.hex() == TRACE[3:35]
    assert {each.key: each.value.string_value for each in spans.resource.attributes}["service.name"] == "orders"
