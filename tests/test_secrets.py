"""Secrets planted wherever the configuration takes one, looked for in everything that the program writes, prints or answers."""

import json
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.small import keys

PLANT = "planted-secret"
FROM_FILE, INLINE, FROM_ENVIRONMENT, KAFKA = (
    f"{PLANT}-{where}" for where in ("in-a-file", "inline", "in-environment", "of-kafka")
)
TIMEOUT_S = 60.0


@pytest.fixture
def planted(tmp_path):
    """A daemon whose broker is away, with a secret of each kind; its configuration, and its ports."""
    port, metrics = free_ports(2)
    (tmp_path / "tokens").write_text(FROM_FILE + "\n")
    client = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "somebody", "sasl_plain_password": KAFKA}  # fmt: skip  # noqa: E501
    reads = {"type": "kafka", "bootstrap_servers": "127.0.0.1:1", "topics": ["a"], "timeout_s": 0.2, "client": client}
    tokens = [{"role": "write", "file": str(tmp_path / "tokens")}, {"role": "admin", "token": INLINE}]
    values = keys(tmp_path / "state", reads, learner={"name": "sgd"}, log={"level": "debug"})
    values["learner"] = {"name": "sgd"}
    values["serve"] = {"port": port, "grpc_port": None, "tokens": tokens}
    values["telemetry"] = {"port": metrics}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics"


def reachable(url):
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def asked(url):
    """What every path says, asked with no token, a wrong one and a right one."""
    paths = ("/v2", "/v2/health/ready", "/openapi.json", "/status.json", "/v2/models/model", "/", "/nowhere")
    for token in (None, "wrong-but-long-enough", FROM_FILE, INLINE, FROM_ENVIRONMENT):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
            for path in paths:
                yield f"GET {path}", client.get(path)
            yield "samples", client.post("/v2/models/model/samples", content=b"{}")
            yield "infer", client.post("/v2/models/model/infer", content=b"{")


def processes():
    return {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}


def test_no_secret_is_in_anything_that_is_written_printed_or_answered(planted, forks, tmp_path):
    config, url, metrics = planted
    life = forks.start("run", config, STREAMLEARN__SERVE__TOKEN=FROM_ENVIRONMENT)
    life.until(lambda: reachable(url), "answering", TIMEOUT_S)
    answers = list(asked(url))
    statuses = [answer.status_code for name, answer in answers if name == "samples"]
    assert statuses == [401, 401, 400, 400, 400], "the secrets are in use: each lets its bearer in"
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {INLINE}"}, timeout=TIMEOUT_S) as client:
        answers.append(("a write", client.post("/v2/models/model/samples", json={"features": [0] * 6, "label": "a"})))
    assert answers[-1][1].status_code == 503, "the broker is away"
    life.until(lambda: "127.0.0.1:1" in life.stderr, "a word about the broker")
    outputs = {f"{i} {name}": each.content + str(each.headers).encode() for i, (name, each) in enumerate(answers)}
    outputs["metrics"] = httpx.get(metrics, timeout=TIMEOUT_S).content
    arguments = processes()
    assert any(b"serving.follower" in line for line in arguments.values())
    life.stop()
    outputs |= {f"arguments of {pid}": line for pid, line in arguments.items()}
    outputs |= {"stdout": life.stdout.encode(), "stderr": life.stderr.encode()}
    for i, command in enumerate(
        (["inspect", tmp_path / "state"], ["inspect", tmp_path / "state", "--json"], ["dlq", "list", config])
    ):
        ended = forks.run(*command)
        assert ended.code == (2 if "dlq" in command else 0), "there are no dead letters"
        outputs[f"command {i}"] = (ended.stdout + ended.stderr).encode()
    written = [path for folder in ("state", "state.live") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert {"status.json", "manifest.json"} <= {path.name for path in written}
    outputs |= {str(path): path.read_bytes() for path in written}
    assert [name for name, content in outputs.items() if PLANT.encode() in content] == []


WRONG = {
    "a token as a number": ["serve.tokens=[{role: write, token: 1234567890123456789}]"],
    "a token that is too short": ["serve.tokens=[{role: write, token: planted-secret}]"],
    "a role that is none": [f"serve.tokens=[{{role: owner, token: {INLINE}}}]"],
    "a token in the place of a list": [f"serve.tokens={INLINE}"],
    "a token in the place of a port": [f"serve.port={INLINE}"],
    "a token under a wrong name": [f"serve.tokken={INLINE}"],
    "a wrong name beside a password": [f"source.client.sasl_password={KAFKA}"],
}


@pytest.mark.parametrize("overrides", WRONG.values(), ids=WRONG)
def test_a_configuration_with_a_mistake_is_refused_without_its_secrets(overrides, planted, forks):
    config, _, _ = planted
    flags = [part for override in overrides for part in ("--set", override)]
    ended = forks.run("run", config, *flags)
    said = ended.stdout + ended.stderr
    assert ended.code == 2, said
    assert "streamlearn: " in said
    assert PLANT not in said
    assert "1234567890123456789" not in said
    assert "Traceback" not in said


def test_a_secret_in_the_environment_that_is_no_json_is_not_quoted(planted, forks):
    config, _, _ = planted
    ended = forks.run("run", config, STREAMLEARN__SERVE__TOKENS=f"[{INLINE}", STREAMLEARN__SERVE=f"{{{INLINE}")
    assert ended.code == 2
    assert PLANT not in ended.stdout + ended.stderr + json.dumps(ended.code)
