"""Names and versions in paths lead nowhere: raw, encoded, doubled and absolute ones open no file and say nothing of one."""

import socket
import sys

import pytest

from benchmarks.testbed.numbered import numbered
from benchmarks.testbed.raw_http import ends, request, split
from streamlearn.serving.hosts import InProcess
from streamlearn.serving.service import SamplesTo, Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import Reference

OPENED = []
LISTENING = [False]


def _note(event, arguments):
    if LISTENING[0] and event in {"open", "os.listdir", "os.scandir", "import", "subprocess.Popen", "sqlite3.connect"}:
        OPENED.append((event, str(arguments[0])))


sys.addaudithook(_note)  # there is no way to take one away: it looks at `LISTENING`


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    status = folder / "status.json"
    status.write_text('{"name": "m"}')
    samples = SamplesTo("log", {"path": str(folder / "log.sqlite")})
    reference = Reference()
    reference.publish(numbered(1))
    host = InProcess(Service("digits", Settings(port=0, keep_alive_s=0.2), status=str(status), samples=samples), reference)
    host.start()
    yield host.port
    host.stop(10.0)


UP = ["..", "%2e%2e", "%252e%252e", "..%2f..", "..%5c..", "....//", "%c0%ae%c0%ae", ".%00.", "..;", "/", "%2f", "C:%5c", "~root", "file:%2f%2f"]  # fmt: skip  # noqa: E501
TARGETS = ["etc/passwd", "snapshot.safetensors", "status.json", "etc%2fpasswd"]
PLACES = ["/{}", "/v2/models/{}", "/v2/models/{}/ready", "/v2/models/digits/versions/{}", "/v2/models/digits/versions/{}/infer", "/page.js/{}", "/v2/../{}"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leads_to_a_file(place, port):
    for up in UP:
        for target in TARGETS:
            path = place.format(f"{up}/{up}/{target}").replace("%s", "")
            for method in ("GET", "POST"):
                OPENED.clear()
                LISTENING[0] = True
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                        client.sendall(request(b"{}", path, method, connection="close"))
                        said = ends(client)[1]
                finally:
                    LISTENING[0] = False
                ((code, _, body),) = split(said)
                assert code in {400, 404, 405}, path
                assert b"root:" not in body, path
                assert OPENED == [], path


def test_the_hook_sees_what_is_opened(port):
    """Else the test above could not fail."""
    OPENED.clear()
    LISTENING[0] = True
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request(b"", "/status.json", "GET", connection="close"))
            ends(client)
    finally:
        LISTENING[0] = False
    assert any(event == "open" and path.endswith("status.json") for event, path in OPENED)
