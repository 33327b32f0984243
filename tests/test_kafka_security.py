"""TLS, SASL and mutual TLS against a real broker: who is let in, what those read who are not, and where no secret may stand."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka.errors import IllegalSaslStateError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError

from benchmarks.testbed.forks import Forks
from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.small import configured, samples, settled
from connectors import SINKS, SOURCES, open_sink, open_source
from connectors.kafka_client import explained
from streamlearn.errors import ConfigError
from streamlearn.records import Message
from tests import secured
from tests.contracts.upstreams import read
from tests.secured import KEY_PASSWORD, PASSWORD, Secured

CLIENTS = [name for name in ("kafka", "kafka-fast") if name in SOURCES and name in SINKS]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, kafka: str) -> Iterator[Secured]:
    """`kafka` is asked for, so that this skips where that does."""
    folder = tmp_path_factory.mktemp("secured")
    try:
        yield secured.started(folder)
    finally:
        secured.stopped(folder)


def connection(broker: Secured, kind: str, **changes: Any) -> dict[str, Any]:
    return {"bootstrap_servers": broker.address(kind), "timeout_s": 5, "client": broker.client(kind, **changes)}


@pytest.mark.parametrize("kind", ["plain", "scram", "mutual"])
@pytest.mark.parametrize("name", CLIENTS)
def test_who_proves_who_they_are_writes_and_reads(broker: Secured, name: str, kind: str) -> None:
    keys, topic = connection(broker, kind), f"{name}-{kind}"
    sink = open_sink(name, {**keys, "topic": topic})
    sink.write([Message(b"%d" % i) for i in range(20)])
    sink.flush(10.0)
    sink.close()
    source = open_source(name, {**keys, "topics": [topic]})
    source.seek({})
    assert [record.value for record in read(source, 20)] == [b"%d" % i for i in range(20)]
    source.close()


@pytest.mark.parametrize("name", CLIENTS)
def test_passwords_of_users_and_keys_come_from_files(broker: Secured, tmp_path: Path, name: str) -> None:
    (tmp_path / "user").write_text(PASSWORD + "\n")
    (tmp_path / "key").write_text(KEY_PASSWORD)
    locked = {"ssl_keyfile": str(broker.folder / "locked.key"), "ssl_password_file": str(tmp_path / "key")}
    by_file = connection(broker, "scram", sasl_plain_password_file=str(tmp_path / "user"))
    del by_file["client"]["sasl_plain_password"]
    for keys in (by_file, connection(broker, "mutual", **locked)):
        sink = open_sink(name, {**keys, "topic": "by-files"})
        sink.write([Message(b"in")])
        sink.flush(10.0)
        sink.close()


def reading(broker: Secured, folder: Path, kind: str, **changes: Any) -> Path:
    """A configuration of a daemon that gives up at once. `host` is another name of the broker's machine."""
    host = changes.pop("host", "127.0.0.1")
    address = broker.address(kind).replace("127.0.0.1", host)
    client = {name: value for name, value in broker.client(kind, **changes).items() if value is not None}
    source = {"type": "kafka", "bootstrap_servers": address, "topics": ["t"], "timeout_s": 4, "client": client}
    return configured(folder / "state", {**source, "give_up_s": 0.1})


NO_PROOF = {"ssl_certfile": None, "ssl_keyfile": None}


REFUSED = "while signing in: user, password or mechanism is refused"
UNKNOWN_CA = "certificate verify failed: unable to get local issuer certificate"
OTHER_HOST = "certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'"


@pytest.mark.parametrize(
    ("who", "code", "line"),
    [
        (("plain", {"sasl_plain_password": "wrong-4713"}), 3, REFUSED),
        (("scram", {"sasl_plain_password": "wrong-4713"}), 3, REFUSED),
        (("scram", {"sasl_mechanism": "SCRAM-SHA-256"}), 3, REFUSED),
        (("scram", {"ssl_cafile": "strangers.pem"}), 3, UNKNOWN_CA),
        (("mutual", {"ssl_cafile": None}), 3, UNKNOWN_CA),
        (("plain", {"host": "localhost"}), 3, OTHER_HOST),
        (("mutual", NO_PROOF), 3, "the broker wants a certificate of the client that it trusts: client.ssl_certfile"),
        (("mutual", {"ssl_keyfile": "locked.key", "ssl_password": "wrong-4713"}), 2, "the keys under client do not open"),
        (("mutual", {"ssl_keyfile": "locked.key"}), 2, "the keys under client do not open"),
        (("mutual", {"ssl_keyfile": "none.key"}), 2, "client.ssl_keyfile names a file that cannot be read: No such file"),
        (("mutual", {"security_protocol": "PLAINTEXT"}), 3, "probably expects another client.security_protocol than PLAIN"),
    ],
)
def test_who_is_not_let_in_reads_one_line_that_says_why(
    broker: Secured, forks: Forks, tmp_path: Path, *, who: tuple[str, dict[str, Any]], code: int, line: str
) -> None:
    kind, changes = who
    files = {name: str(broker.folder / value) for name, value in changes.items() if str(value).endswith((".pem", ".key"))}
    life = forks.run("run", reading(broker, tmp_path, kind, **{**changes, **files}))
    said = [text for text in life.stderr.splitlines() if not text.startswith("{")]
    assert (life.code, len(said)) == (code, 1), life.stderr
    assert said[0].startswith("streamlearn: ")
    assert line in said[0]
    for secret in (PASSWORD, "wrong-4713"):
        assert secret not in life.stdout + life.stderr


@pytest.mark.parametrize("error", [UnsupportedSaslMechanismError(), IllegalSaslStateError(), SaslAuthenticationFailedError()])
def test_a_refusal_reads_alike_whether_the_answer_or_the_end_of_the_connection_comes_first(error: Exception) -> None:
    """A broker answers and closes: which of both a client sees is a race."""
    for complaint in (f"Connection failed: {error}", "Connection failed: socket disconnected"):
        assert REFUSED in explained(complaint, "SASL_SSL")


def test_a_password_that_is_changed_while_the_broker_is_away_is_read_anew(
    broker: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file holds is asked for at every new connection, so a password can be changed without a restart."""
    (tmp_path / "word").write_text(PASSWORD)
    keys = connection(broker, "scram", sasl_plain_password_file=str(tmp_path / "word"))
    del keys["client"]["sasl_plain_password"]
    source = open_source("kafka", {**keys, "topics": ["by-files"]})
    source.seek({})
    (tmp_path / "word").write_text("other")
    assert source._upstream()["sasl_plain_password"] == "other"  # noqa: S105
    source.close()


@pytest.mark.parametrize("value", [83, True, 1.5, None])
def test_a_password_that_is_no_text_is_refused_and_not_shown(value: object) -> None:
    """YAML makes 83 of 0123, and true of yes."""
    client = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_password": value}
    with pytest.raises(ConfigError, match="sasl_plain_password is no text: put it in quotes, or name a file") as caught:
        open_source("kafka", {"topics": ["t"], "client": client})
    assert str(value) not in str(caught.value)


def spying(broker: Secured, folder: Path) -> tuple[Path, int, int]:
    """A daemon that uses the secret everywhere: source, dead letters, predictions, posted samples. Its ports."""
    ports = free_ports(2)
    client = {k: v for k, v in broker.client("scram").items() if k != "sasl_plain_password"}
    there = {"type": "kafka", "bootstrap_servers": broker.sasl, "timeout_s": 5, "client": client}
    config = configured(
        folder / "state",
        {**there, "topics": ["spied"], "group_id": "spies"},
        dead_letters={"sink": {**there, "topic": "spied-letters"}},
        predictions={**there, "topic": "spied-answers"},
        serve={"enabled": True, "processes": 1, "port": ports[0], "grpc_port": None},
        telemetry={"enabled": True, "port": ports[1]},
        checkpoint={"every_records": 50},
        log={"level": "debug"},
    )
    return config, *ports


WORD = "SASL_PLAIN_PASSWORD"
ENVIRONMENT = {f"STREAMLEARN__{place}__CLIENT__{WORD}": PASSWORD for place in ("SOURCE", "DEAD_LETTERS__SINK", "PREDICTIONS")}


def produce(broker: Secured, topic: str, values: list[bytes]) -> None:
    sink = open_sink("kafka", {**connection(broker, "scram"), "topic": topic})
    sink.write([Message(value) for value in values])
    sink.flush(10.0)
    sink.close()


def test_a_secret_stands_nowhere_but_where_it_was_put(broker: Secured, forks: Forks, tmp_path: Path) -> None:
    """Searched for in every file, log line, page, metric, answer, message and argument of a daemon's whole life."""
    produce(broker, "spied", [*samples(200), b"not json"])
    config, port, metrics = spying(broker, tmp_path)
    life = forks.execute("run", config, **ENVIRONMENT)
    life.until(lambda: settled(tmp_path / "state") >= 201, "all records have an outcome", 200.0)
    shown = [life.stdout, arguments_below(life.pid)]
    with httpx.Client(timeout=10) as http:
        post = http.post(f"http://127.0.0.1:{port}/v2/models/model/samples", content=samples(1, seed=9)[0])
        assert post.is_success, post.text
        pages = ["/", "/v2", "/v2/models/model", "/status.json", "/v2/health/ready", "/v2/repository", "/openapi.json"]
        shown += [http.get(f"http://127.0.0.1:{port}{page}").text for page in pages]
        shown.append(http.get(f"http://127.0.0.1:{metrics}/metrics").text)
    life.stop()
    shown.append(life.stderr)
    for command in (["inspect", tmp_path / "state", "--json"], ["check", config, "--json"], ["dlq", "list", config, "--json"]):
        told = forks.run(*command, **ENVIRONMENT)
        assert told.code == 0, told.stderr
        shown += [told.stdout, told.stderr]
    assert "spied[0]@200" in shown[-2]
    refused = forks.run("run", config, "--set", "source.client.sasl_plain_pasword=x", **ENVIRONMENT)
    assert refused.code == 2
    shown += [refused.stdout, refused.stderr]
    assert [text for text in shown if PASSWORD in text] == []
    assert files_with(PASSWORD.encode(), tmp_path) == []
    assert files_with(b"spied", tmp_path), "the search finds what is there"


def arguments_below(pid: int) -> str:
    """What `ps` shows of the process and its followers."""
    command = ["ps", "-ww", "-o", "args=", "--pid", str(pid), "--ppid", str(pid)]
    family = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "follower" in family.stdout
    return family.stdout


def files_with(what: bytes, folder: Path) -> list[Path]:
    """All files below `folder` that hold these bytes."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and what in path.read_bytes()]
