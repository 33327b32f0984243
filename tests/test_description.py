"""The OpenAPI description, and schemathesis attacking a server with what it says."""

import json
import threading

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from benchmarks.testbed.numbered import numbered
from streamlearn.control import Requests
from streamlearn.serving.description import openapi
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.hosts import InProcess
from streamlearn.serving.http import DESCRIPTION, Application
from streamlearn.serving.page import FILES
from streamlearn.serving.service import SamplesTo, Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import Reference
from tests.test_http import answering, get

load_all_checks()
HELD = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    status = tmp_path_factory.mktemp("state") / "status.json"
    status.write_text("{}")
    reference = Reference()
    reference.publish(numbered(1))
    samples = SamplesTo("log", {"path": str(status.with_name("log.sqlite"))})
    control = status.with_name("control")
    service = Service("digits", Settings(port=0), status=str(status), samples=samples, control=str(control))
    host, requests, over = InProcess(service, reference), Requests(control), threading.Event()
    requests.begin()
    learner = threading.Thread(target=answer, args=(requests, over, reference))
    learner.start()
    host.start()
    yield f"http://127.0.0.1:{host.port}"
    host.stop(10.0)
    over.set()
    learner.join()


def answer(requests, over, reference):
    """As a learner does that keeps the checkpoint of number 1 alone, and serves it already."""
    while not over.wait(0.005):
        reference.beat()
        if asked := requests.next():
            name, request = asked
            known = {"number": 1} if request.number == 1 else {"error": "not kept", "status": 404}
            requests.answer(name, {"numbers": [1]} if request.kind == "index" else known)


DOCUMENT = openapi(model_name="digits", shape=(2,), max_rows=1024)
schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_schemathesis_asks_is_answered_as_described(case, url):
    case.call_and_validate(base_url=url, checks=HELD)


def test_the_document_that_is_served_is_the_one_that_is_attacked():
    assert get(answering(), DESCRIPTION).json() == json.loads(msgspec.json.encode(DOCUMENT))


def test_every_route_is_described_and_nothing_else():
    """But the files of the page, and that `/v2/` is `/v2` too."""
    app = answering()
    routes = {(path, method.lower()) for path, method in app._routes.paths}
    described = {(path, method) for path, item in get(app, DESCRIPTION).json()["paths"].items() for method in set(item) - {"parameters"}}  # fmt: skip  # noqa: E501
    assert routes - described == {(path, "get") for path in (*FILES, "/v2/")}
    assert described <= routes


def test_the_description_knows_the_shape_once_a_snapshot_does():
    app = Application(Endpoint(Reference(), model_name="digits", settings=Settings()))
    for served, lengths in ((app, 1), (answering(), 2)):
        schemas = get(served, DESCRIPTION).json()["components"]["schemas"]
        question = schemas["Question"]["properties"]["inputs"]["items"]["properties"]
        assert len(question["shape"]["prefixItems"]) == lengths
