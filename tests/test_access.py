"""Tokens and their roles, where they come from and how they change; TLS; and what nobody may do without them."""

import json
import os
import ssl

import httpx
import pytest
import trustme

from benchmarks.testbed.numbered import ALL, INFER, assert_of_one_snapshot, numbered
from benchmarks.testbed.waiting import DEADLINE_S
from streamlearn.config import configure
from streamlearn.errors import ConfigError
from streamlearn.serving.access import Access, TokenKeys
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.open_inference import RequestError
from streamlearn.serving.service import Service, decode, encode
from streamlearn.serving.settings import Settings
from streamlearn.settings import read
from streamlearn.snapshot import FilePublisher, Reference
from tests.test_http import answering, get, post, rows, sample

READ, WRITE, ADMIN = (f"{role}-token-of-the-tests" for role in ("read", "write", "admin"))
ROLES = {"read": READ, "write": WRITE, "admin": ADMIN}
ALL_THREE = [{"role": role, "token": token} for role, token in ROLES.items()]


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def allowed(access, role, token=None, **headers):
    try:
        access.check(({} if token is None else bearer(token)) | headers, role)
    except RequestError as error:
        return error.status
    return True


UNKNOWN = (None, "something-else-entirely", "", READ[:-1], READ + "x", "ü" * 20)
MAY = {READ: [True, 403, 403], WRITE: [True, True, 403], ADMIN: [True, True, True]} | {token: [401] * 3 for token in UNKNOWN}


@pytest.mark.parametrize(("token", "expected"), MAY.items())
def test_each_role_may_do_what_those_before_it_may(token, expected):
    access = Access([TokenKeys(**each) for each in ALL_THREE], host="0.0.0.0")  # noqa: S104
    assert [allowed(access, role, token) for role in ("read", "write", "admin")] == expected


@pytest.mark.parametrize("scheme", ["Basic", "", "bearerx"])
def test_another_scheme_is_no_token(scheme):
    access = Access([TokenKeys(role="admin", token=ADMIN)], host="127.0.0.1")
    assert allowed(access, "write", authorization=f"{scheme} {ADMIN}") == 401
    assert allowed(access, "write", authorization=f"bearer  {ADMIN}") is True


def test_reading_is_open_until_a_reader_has_a_token():
    assert allowed(Access([TokenKeys(role="write", token=WRITE)], host="0.0.0.0"), "read") is True  # noqa: S104
    assert allowed(Access([TokenKeys(role="read", token=READ)], host="127.0.0.1"), "read") == 401


def test_without_any_token_only_this_machine_may_write_and_no_web_page():
    for host, page, expected in (("127.0.0.1", {}, True), ("127.0.0.1", {"origin": "http://x"}, 403), ("0.0.0.0", {}, 401)):  # noqa: S104
        for role in ("write", "admin"):
            assert allowed(Access([], host=host), role, **page) == expected


def test_a_file_holds_several_tokens_and_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "writers"
    path.write_text(f"{WRITE}\n\n  {ADMIN}  \n")
    access = Access([TokenKeys(role="write", file=path)], host="127.0.0.1")
    assert [allowed(access, "write", token) for token in (WRITE, ADMIN, READ)] == [True, True, 401]
    replaced(path, READ)
    assert [allowed(access, "write", token) for token in (WRITE, ADMIN, READ)] == [401, 401, True]
    path.unlink()
    assert allowed(access, "write", READ) == 401, "it may have been taken away so that nobody writes any more"
    replaced(path, "short")
    assert allowed(access, "write", "short") == 401
    replaced(path, WRITE)
    assert allowed(access, "write", WRITE) is True


def replaced(path, text):
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"short\n", b"\xff" * 40, "ümlaut-token-of-some-length".encode()])
def test_a_file_that_holds_no_good_token_stops_the_start_and_is_not_quoted(tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"serve\.tokens") as caught:
        InProcess(Service("digits", Settings(port=0, tokens=[{"role": "write", "file": str(path)}])), Reference()).start()
    assert "short" not in str(caught.value).replace("or more", "")


WRONG = [
    {"role": "root", "token": WRITE},
    {"role": "read"},
    {"role": "read", "token": WRITE, "file": "x"},
    {"token": WRITE},
    WRITE,
]


@pytest.mark.parametrize("given", WRONG)
def test_a_token_without_its_role_or_with_a_wrong_one_is_refused_unquoted(given):
    with pytest.raises(ConfigError) as caught:
        read(Settings, {"tokens": [given]}, path="serve")
    assert WRITE not in str(caught.value)


def test_tokens_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("STREAMLEARN__SERVE__TOKENS", json.dumps(ALL_THREE))
    config = configure({"source": {"type": "stdin"}, "input": {"shape": [2]}})
    settings = read(Settings, config.serve.rest, path="serve")
    assert [each.token.get_secret_value() for each in settings.tokens] == list(ROLES.values())
    monkeypatch.setenv("STREAMLEARN__SERVE__TOKENS", f"[{WRITE}")
    with pytest.raises(ConfigError, match="JSON") as caught:
        read(Settings, configure({"source": {"type": "stdin"}, "input": {"shape": [2]}}).serve.rest, path="serve")
    assert WRITE not in str(caught.value)


OPEN = ("/v2/health/live", "/v2/health/ready", "/", "/page.js", "/page.css")
READING = ("/v2", "/v2/", "/status.json", "/openapi.json", "/v2/models/digits", "/v2/models/digits/ready", "/v2/models/digits/versions/7")  # fmt: skip  # noqa: E501


def test_every_endpoint_asks_for_the_role_it_needs():
    app = answering(tokens=ALL_THREE, samples=[].extend, status=lambda: b"{}", host="0.0.0.0")  # noqa: S104
    assert {get(app, path).status_code for path in OPEN} == {200}
    assert {get(app, path).status_code for path in READING} == {401}
    assert post(app, INFER, rows([1, 2])).status_code == 401
    assert post(app, INFER, rows([1, 2]), **bearer(READ)).status_code == 200
    samples = "/v2/models/digits/samples"
    statuses = [post(app, samples, sample(), **bearer(token)).status_code for token in (READ, WRITE, ADMIN, "x" * 20)]
    assert statuses == [403, 200, 200, 401]
    refused = post(app, samples, sample())
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "role 'write'" in refused.json()["error"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = made.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    (folder / "both.pem").write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    trusting = ssl.create_default_context()
    made.configure_trust(trusting)
    return folder, trusting


@pytest.mark.parametrize("files", [("cert.pem", "key.pem"), ("both.pem", None)], ids=["two files", "one file"])
@pytest.mark.parametrize("kind", ["follower", "in_process"])
def test_answers_go_over_tls_alone_once_there_is_a_certificate(kind, files, authority, tmp_path):
    folder, trusting = authority
    cert, key = (each and str(folder / each) for each in files)
    service = Service("digits", Settings(port=0, tls_cert=cert, tls_key=key, head_timeout_s=0.5))
    assert decode(encode(service)) == service
    reference = Reference()
    reference.publish(numbered(1))
    FilePublisher(tmp_path).publish(numbered(1))
    host = InProcess(service, reference) if kind == "in_process" else Followers(service, folder=tmp_path)
    host.start()
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{host.port}", verify=trusting, timeout=DEADLINE_S) as client:
            for _ in range(3):
                assert assert_of_one_snapshot(client.post(INFER, json=ALL)) == 1
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{host.port}{INFER}", json=ALL, timeout=DEADLINE_S)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{host.port}/v2", timeout=DEADLINE_S)
    finally:
        host.stop(DEADLINE_S)


def test_a_certificate_that_cannot_be_used_stops_the_start(authority, tmp_path):
    folder, _ = authority
    (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\nsecret-looking-junk\n")
    bad = [
        (folder / "cert.pem", None),
        (tmp_path / "junk.pem", None),
        (tmp_path / "absent", None),
        (folder / "cert.pem", tmp_path / "x"),
    ]
    for cert, key in bad:
        with pytest.raises(ConfigError, match=r"serve\.tls_cert .* cannot be used") as caught:
            InProcess(Service("digits", Settings(port=0, tls_cert=cert, tls_key=key)), Reference()).start()
        assert "secret-looking" not in str(caught.value)
    with pytest.raises(ConfigError, match="no tls_cert"):
        read(Settings, {"tls_key": os.devnull}, path="serve")
