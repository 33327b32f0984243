"""GRPCInferenceService: the wire format against Triton's own, Triton's client against both hosts, bounds, tokens, and TLS."""

import asyncio
import os
import selectors
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
import trustme

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: the extra `grpc`")
triton = pytest.importorskip("tritonclient.grpc", reason="Triton's client for gRPC is not installed: the extra `dev`")

from tritonclient.grpc import service_pb2  # noqa: E402  after the skips
from tritonclient.utils import InferenceServerException  # noqa: E402

from benchmarks.testbed.numbered import LABELS, numbered  # noqa: E402
from benchmarks.testbed.waiting import DEADLINE_S, until  # noqa: E402
from streamlearn.errors import ConfigError  # noqa: E402
from streamlearn.records import Answering, Snapshot  # noqa: E402
from streamlearn.schema import Column, Schema  # noqa: E402
from streamlearn.serving.endpoint import Endpoint  # noqa: E402
from streamlearn.serving.grpc import GrpcServer, Reserved, written  # noqa: E402
from streamlearn.serving.grpc_messages import FIELDS, MESSAGES, METHODS  # noqa: E402
from streamlearn.serving.grpc_tensors import CONTENTS, read_message  # noqa: E402
from streamlearn.serving.hosts import Followers, InProcess  # noqa: E402
from streamlearn.serving.open_inference import RequestError  # noqa: E402
from streamlearn.serving.service import Service, grpc_port  # noqa: E402
from streamlearn.serving.settings import Settings  # noqa: E402
from streamlearn.serving.tensors import DTYPES  # noqa: E402
from streamlearn.snapshot import FilePublisher, Reference  # noqa: E402

X = np.array([[0.5, 1.0], [2.0, -3.0], [0.0, 0.0]], np.float32)
NAMES = ("label", "probabilities", "labels")
READER, WRITER = "a-token-that-reads", "a-token-that-writes"


@contextmanager
def running(kind, folder, count=1, **limits):
    """A host with gRPC on a free port, and its publisher."""
    told = Service("digits", Settings(port=0, grpc_port=0, **limits))
    publisher = Reference() if kind == "in_process" else FilePublisher(folder)
    publisher.publish(numbered(1))
    host = InProcess(told, publisher) if kind == "in_process" else Followers(told, folder=folder, count=count)
    host.start()
    try:
        yield publisher, host
    finally:
        host.stop(DEADLINE_S)


@contextmanager
def asking(host, **more):
    """Triton's client, once the host answers."""
    client = triton.InferenceServerClient(f"127.0.0.1:{host.grpc_port}", **more)
    try:
        until(lambda: is_live(client), "a server of gRPC")
        yield client
    finally:
        client.close()


def is_live(client):
    try:
        return client.is_server_live(client_timeout=DEADLINE_S)
    except InferenceServerException as error:
        assert error.status() == "StatusCode.UNAVAILABLE", error
        return False


def features(x, datatype="FP32"):
    return [triton.InferInput("features", list(x.shape), datatype).set_data_from_numpy(x)]


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def texts(answer, name):
    return [each.decode() for each in answer.as_numpy(name).ravel()]


def version_of(answer):
    """The version, of which alone every part of the answer tells."""
    version = int(answer.get_response().model_version)
    likely = np.exp(1.0 + version % 97)
    assert set(texts(answer, "label")) == {str(version)}
    assert texts(answer, "labels") == [str(version + i) for i in range(LABELS)]
    np.testing.assert_allclose(answer.as_numpy("probabilities")[:, 0], likely / (likely + LABELS - 1), rtol=1e-5)
    return version


def described(descriptor):
    """Fields of a message and of those within it, as the wire has them."""
    within = sorted((each.name, described(each)) for each in descriptor.nested_types)
    own = [
        (f.name, f.number, f.type, f.is_repeated, f.message_type.full_name if f.message_type else None,
         f.containing_oneof.name if f.containing_oneof else None)
        for f in descriptor.fields
    ]  # fmt: skip
    return sorted(own), within


@pytest.mark.parametrize("name", [name for name in FIELDS if "." not in name])
def test_each_message_has_the_fields_that_tritons_has(name):
    assert described(MESSAGES[name].DESCRIPTOR) == described(getattr(service_pb2, name).DESCRIPTOR)


def test_the_service_has_methods_that_tritons_has():
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(METHODS) <= set(theirs)


@pytest.mark.parametrize("kind", ["follower", "in_process"])
def test_tritons_client_finds_server_and_model_and_is_answered(kind, tmp_path):
    with running(kind, tmp_path) as (_, host), asking(host) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        assert client.get_server_metadata().name == "streamlearn"
        found = client.get_model_metadata("digits", as_json=True)
        assert (found["versions"], found["inputs"]) == (["1"], [{"name": "features", "datatype": "FP32", "shape": ["-1", "2"]}])
        answer = client.infer(
            "digits", features(X), outputs=outputs(*NAMES, "top_labels"), request_id="q", parameters={"top_k": 2}
        )
        assert version_of(answer) == 1
        assert answer.get_response().id == "q"
        assert texts(answer, "top_labels") == ["1", "2"] * len(X)
        assert answer.get_response().outputs[0].parameters["label_type"].string_param == "integer"


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        (lambda c: c.infer("digits", features(X[:, :1])), "INVALID_ARGUMENT", r"has shape \[3, 1\], expected \[n, 2\]"),
        (lambda c: c.infer("other", features(X)), "NOT_FOUND", "'other' is not known"),
        (lambda c: c.infer("digits", features(X), model_version="6"), "NOT_FOUND", "version '6' is not served"),
        (lambda c: c.is_model_ready("other"), "NOT_FOUND", "'other' is not known"),
        (lambda c: c.get_model_metadata("digits", "6"), "NOT_FOUND", "version '6' is not served"),
        (lambda c: c.infer("digits", features(X), outputs=outputs("nothing")), "INVALID_ARGUMENT", "expected each of label"),
        (lambda c: c.infer("digits", features(X * np.nan)), "INVALID_ARGUMENT", "row 0 holds a value that is not finite"),
        (lambda c: c.infer("digits", features(np.ones((9, 2), np.float32))), "INVALID_ARGUMENT", "9 rows, expected 1 to 8"),
        (lambda c: c.infer("digits", features(np.ones((1, 40_000), np.float32))), "RESOURCE_EXHAUSTED", "larger than max"),
        (lambda c: c.infer("digits", features(X), headers={"big": "x" * 70_000}), "RESOURCE_EXHAUSTED", "metadata"),
        (lambda c: c.get_inference_statistics("digits"), "UNIMPLEMENTED", "not found"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_an_error_with_its_code_and_the_next_is_answered(shared, ask, code, message):
    with pytest.raises(InferenceServerException, match=f"(?i){message}") as caught:
        ask(shared)
    assert caught.value.status() == f"StatusCode.{code}"
    assert version_of(shared.infer("digits", features(X), outputs=outputs(*NAMES))) == 1


@pytest.fixture(scope="module")
def shared():
    with running("in_process", None, max_rows=8, max_body_bytes=100_000) as (_, host), asking(host) as client:
        yield client


def asked(x, datatype, **more):
    """The same tensor as raw bytes, and in the field of its datatype."""

    def message(**tensor):
        return MESSAGES["ModelInferRequest"](
            model_name="m", inputs=[{"name": "features", "datatype": datatype, "shape": x.shape, **tensor}], **more
        )  # fmt: skip

    raw = message()
    raw.raw_input_contents.append(x.tobytes())
    return raw, message(contents={CONTENTS[datatype]: x.ravel().tolist()}) if datatype in CONTENTS else None


def read(message, schema=None, shape=(2,)):
    return read_message(message, shape=shape, max_rows=10, schema=schema)


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_and_typed_contents_are_the_same_rows(datatype):
    x = np.array([[0, 1], [1, 1], [100, 7]]).astype(DTYPES[datatype])
    raw, typed = asked(x, datatype, id="q", parameters={"about": {"string_param": "ever"}, "top_k": {"int64_param": 3}})
    question = read(raw)
    np.testing.assert_array_equal(question.x, x.astype(np.float32))
    assert (question.id, question.about, question.top_k, question.outputs[0].binary) == ("q", "ever", 3, True)
    if typed is None:
        assert datatype == "FP16"
        return
    question = read(typed)
    np.testing.assert_array_equal(question.x, x.astype(np.float32))
    assert not question.outputs[0].binary, "they go out as they came"


def test_named_columns_come_one_tensor_each_raw_and_typed():
    schema = Schema((Column("amount", "numeric", True, 0), Column("carrier", "categorical", True, 16)), "refuse", 8)
    amount, carrier = (
        {"name": "amount", "datatype": "FP32", "shape": [2]},
        {"name": "carrier", "datatype": "BYTES", "shape": [2]},
    )
    typed = MESSAGES["ModelInferRequest"](
        inputs=[amount | {"contents": {"fp32_contents": [1.5, 2.5]}}, carrier | {"contents": {"bytes_contents": [b"AA", b"B"]}}]
    )
    raw = MESSAGES["ModelInferRequest"](inputs=[amount, carrier])
    raw.raw_input_contents.extend([np.array([1.5, 2.5], "<f4").tobytes(), b"\x02\0\0\0AA\x01\0\0\0B"])
    expected = np.stack([[1.5, 2.5], schema.columns[1].values(["AA", "B"])], axis=1)
    for message in (typed, raw):
        np.testing.assert_array_equal(read(message, schema, (2,)).x, expected)


WRONG = {
    "two tensors of bytes for one input": ({"raw_input_contents": [b"", b""]}, "holds 2 tensors, expected one for each of 1"),
    "bytes that are too few": ({"raw_input_contents": [b"1234"]}, "has 4 raw bytes, its shape and datatype need 8"),
    "both": (
        {"raw_input_contents": [b"12345678"], "contents": {"fp32_contents": [1, 2]}},
        "contents beside raw_input_contents",
    ),
    "neither": ({}, "holds 0 values in fp32_contents, its shape needs 2"),
    "another field": ({"contents": {"fp64_contents": [1, 2]}}, "of datatype FP32 has fp64_contents, expected fp32_contents"),
    "a negative length": ({"shape": [-1, 2]}, "expected no negative length"),
    "an unknown datatype": ({"datatype": "FP99"}, "has datatype 'FP99', expected one of"),
    "halves as numbers": ({"datatype": "FP16"}, "expected it in raw_input_contents"),
    "a number too large": ({"datatype": "INT8", "contents": {"int_contents": [1, 200]}}, "does not fit INT8"),
    "text": ({"datatype": "BYTES", "contents": {"bytes_contents": [b"a", b"b"]}}, "has datatype 'BYTES', expected one of"),
    "no flag": (
        {"raw_input_contents": [b"12345678"], "parameters": {"binary_data_output": {"int64_param": 1}}},
        "expected true or false",
    ),
    "an empty parameter": (
        {"raw_input_contents": [b"12345678"], "parameters": {"top_k": {}}},
        "parameter 'top_k' is not valid",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tensor_that_is_not_what_it_says_is_refused(name):
    changes, message = WRONG[name]
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 2]}
    tensor |= {key: value for key, value in changes.items() if key in {"datatype", "shape", "contents"}}
    outer = {key: value for key, value in changes.items() if key not in tensor and key != "contents"}
    with pytest.raises(RequestError, match=message):
        read(MESSAGES["ModelInferRequest"](inputs=[tensor], **outer))


@pytest.mark.parametrize("kind", ["follower", "in_process"])
def test_no_answer_mixes_two_snapshots_while_they_change(kind, tmp_path):
    done, versions = threading.Event(), []

    def publish(publisher):
        number = 1
        while not done.wait(0.02):
            number += 1
            publisher.publish(numbered(number))

    with running(kind, tmp_path) as (publisher, host), asking(host) as client:
        publishing = threading.Thread(target=publish, args=(publisher,))
        publishing.start()
        try:
            while len(set(versions)) < 10:
                versions.append(version_of(client.infer("digits", features(X), outputs=outputs(*NAMES))))
                assert len(versions) < 100_000, "the model does not change"
        finally:
            done.set()
            publishing.join()
    assert versions == sorted(versions)


def test_it_is_not_ready_and_says_why_before_a_label_is_learned(tmp_path):
    empty = numbered(0)
    arrays = {**empty.answering.arrays, "active": np.zeros(LABELS, np.uint8)}
    with running("in_process", None) as (publisher, host), asking(host) as client:
        publisher.publish(Snapshot(0, Answering("mlp", arrays, {}), empty.labels, (2,), 0))
        assert client.is_server_ready()
        assert not client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="no label learned yet") as caught:
            client.infer("digits", features(X))
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_tokens_are_those_of_http(tmp_path):
    tokens = [{"role": "read", "token": READER}]
    with running("in_process", None, tokens=tokens) as (_, host), asking(host) as client:
        assert client.is_server_ready(), "health needs none"
        for headers in (None, {"authorization": "Bearer another-token-than-that"}):
            with pytest.raises(InferenceServerException, match="needs a token of the role 'read'") as caught:
                client.infer("digits", features(X), headers=headers)
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        given = {"authorization": f"Bearer {READER}"}
        assert version_of(client.infer("digits", features(X), outputs=outputs(*NAMES), headers=given)) == 1


@pytest.mark.parametrize(("kind", "one_file"), [("follower", False), ("in_process", True)])
def test_with_a_certificate_it_speaks_tls_alone(kind, one_file, tmp_path):
    made, live = trustme.CA(), tmp_path / "live"
    issued, authority = made.issue_cert("127.0.0.1"), tmp_path / "ca.pem"
    made.cert_pem.write_to_path(authority)
    cert, key = tmp_path / "cert.pem", None if one_file else tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(cert if key is None else key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    live.mkdir()
    with running(kind, live, tls_cert=cert, tls_key=key) as (_, host):
        with asking(host, ssl=True, root_certificates=str(authority)) as client:
            assert version_of(client.infer("digits", features(X), outputs=outputs(*NAMES))) == 1
        plain = triton.InferenceServerClient(f"127.0.0.1:{host.grpc_port}")
        with pytest.raises(InferenceServerException):
            plain.is_server_live(client_timeout=2)
        plain.close()


def called(channel, name, message, **more):
    call = channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=MESSAGES[f"{name}Request"].SerializeToString,
        response_deserializer=MESSAGES[f"{name}Response"].FromString,
    )
    return call(message, **more)


@contextmanager
def endpoint(**limits):
    reference = Reference()
    reference.publish(numbered(7))
    yield Endpoint(reference, model_name="digits", settings=Settings(**limits))


def on_loop(endpoint, scenario):
    """A server and a channel to it in one event loop, so that the test says what happens between two turns."""

    async def run():
        server = GrpcServer(endpoint, "127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                await scenario(channel)
        finally:
            await server.stop(1)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def inference():
    return asked(X, "FP32", model_version="")[0]


async def outcome(channel, **more):
    message = inference()
    message.model_name = "digits"
    try:
        return (await called(channel, "ModelInfer", message, **more)).model_version
    except grpc.aio.AioRpcError as error:
        return error.code().name


def test_more_at_once_than_its_bound_is_refused_at_once_and_the_rest_is_answered():
    bound, many = 3, 20

    async def scenario(channel):
        async with one.one_a_turn:  # nothing is answered while this is held
            asking = [asyncio.create_task(outcome(channel)) for _ in range(many)]
            while sum(task.done() for task in asking) < many - bound:
                await asyncio.sleep(0)
            refused = [task.result() for task in asking if task.done()]
        assert refused == ["RESOURCE_EXHAUSTED"] * (many - bound)
        answers = await asyncio.gather(*asking)
        assert sorted(answers) == ["7"] * bound + refused
        assert await outcome(channel) == "7", "it answers again"
        assert one.counts.requests == {"200": bound + 1, "503": many - bound}

    with endpoint(max_in_progress=bound) as one:
        on_loop(one, scenario)


def test_a_deadline_that_passes_ends_the_request_and_frees_its_place():
    async def scenario(channel):
        async with one.one_a_turn:
            for _ in range(2):  # the second finds the place of the first, which is the only one
                assert await outcome(channel, timeout=0.2) == "DEADLINE_EXCEEDED"
                while one.in_progress:  # the client knows of the end before the server does
                    await asyncio.sleep(0.01)
        assert await outcome(channel, timeout=DEADLINE_S) == "7"
        assert one.counts.rows == len(X), "what nobody waits for is not computed"
        assert one.counts.requests == {"499": 2, "200": 1}, "which is no fault of the server's"

    with endpoint(max_in_progress=1) as one:
        on_loop(one, scenario)


def test_a_learner_that_stalled_is_not_live_over_grpc_either():
    now = [0.0]
    reference = Reference(lambda: now[0])
    reference.publish(numbered(7))

    async def scenario(channel):
        asking = MESSAGES["ServerLiveRequest"]()
        assert (await called(channel, "ServerLive", asking)).live is True
        now[0] = 301.0
        assert (await called(channel, "ServerLive", asking)).live is False

    on_loop(Endpoint(reference, model_name="digits", settings=Settings(), beside_learner=True), scenario)


def test_bytes_that_are_no_message_are_an_error_and_no_more():
    async def scenario(channel):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff\xff")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await outcome(channel) == "7"

    with endpoint() as one:
        on_loop(one, scenario)


def test_several_followers_share_the_port_and_one_that_dies_comes_back(tmp_path):
    with running("follower", tmp_path, count=2) as (_, host):
        with asking(host) as client:
            assert version_of(client.infer("digits", features(X), outputs=outputs(*NAMES))) == 1
        with pytest.raises(ConfigError, match=f"cannot listen for gRPC at 127.0.0.1 port {host.grpc_port}"):
            Reserved("127.0.0.1", host.grpc_port)
        for pid in host.pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: host.restarts == 2 and host.is_alive(), "both again")
        with asking(host) as client:
            assert version_of(client.infer("digits", features(X), outputs=outputs(*NAMES))) == 1


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = Service("digits", Settings(port=0, grpc_port=taken.getsockname()[1]))
        with pytest.raises(ConfigError, match=r"cannot listen for gRPC at 127.0.0.1 port .*choose another serve.grpc_port"):
            InProcess(told, Reference()).start()


def ended(sock):
    """Whether the server has closed it: all that was said is read, and nothing follows."""
    sock.settimeout(DEADLINE_S)
    with suppress(ConnectionError):
        while sock.recv(4096):
            pass
    return True


def test_connections_above_the_bound_are_closed_and_so_are_those_that_say_nothing():
    bound, opened = 4, 12
    with running("in_process", None, max_connections=bound, head_timeout_s=0.5) as (_, host), ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", host.grpc_port))) for _ in range(opened)]
        began = time.monotonic()
        assert all(ended(sock) for sock in socks)
        assert time.monotonic() - began < DEADLINE_S
        with asking(host) as client:
            assert version_of(client.infer("digits", features(X), outputs=outputs(*NAMES))) == 1


def test_a_connection_above_the_bound_is_closed_at_once():
    """The others may be silent for an hour."""
    bound, opened = 3, 10
    limits = {"max_connections": bound, "head_timeout_s": 3600.0, "keep_alive_s": 3600.0}
    with running("in_process", None, **limits) as (_, host), ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", host.grpc_port))) for _ in range(opened)]
        watched = selectors.DefaultSelector()
        for sock in socks:
            watched.register(sock, selectors.EVENT_READ)

        def closed():
            for key, _ in watched.select(0.1):
                with suppress(ConnectionError):
                    if key.fileobj.recv(4096):
                        continue
                watched.unregister(key.fileobj)
            return len(watched.get_map()) <= bound

        until(closed, "all but those that are allowed are closed")
        assert len(watched.get_map()) == bound
        watched.close()


def test_where_its_library_is_missing_it_is_off_unless_it_was_asked_for(monkeypatch):
    assert grpc_port(Settings()) == 8081
    assert grpc_port(Settings(port=0)) is None
    monkeypatch.setattr("streamlearn.serving.service.find_spec", {}.get)
    assert grpc_port(Settings()) is None
    with pytest.raises(ConfigError, match=r"grpcio is not installed: pip install 'streamlearn\[grpc\]'"):
        grpc_port(Settings(grpc_port=8081))


def test_an_address_of_ipv6_stands_in_brackets():
    assert written("::1", 8081) == "[::1]:8081"
