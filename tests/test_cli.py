"""Every way in which a command refuses: its exit code, and the one line that says where, what was found, what was expected."""

import json
import socket
import time

import httpx
import pytest

import connectors
from benchmarks.testbed.forks import Forks, Life
from benchmarks.testbed.small import append, configured, on_log, samples, settled
from streamlearn import __version__


def refused(life: Life, code: int, line: str) -> None:
    """It ended with `code`, said this one line, and printed nothing."""
    assert life.wait() == code, life.stderr
    said = [text for text in life.stderr.splitlines() if not text.startswith("{")]  # beside what it logged
    assert said == [f"streamlearn: {line}"]
    assert life.stdout == ""


def from_log(tmp_path, **changes):
    return configured(tmp_path / "state", {"type": "log", "path": str(tmp_path / "samples.sqlite")}, **changes)


MANY = "leave the key out for the default, 10000"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"checkpoint": {"every_record": 5}}, "checkpoint.every_record is not a known key: did you mean 'every_records'?"),
        ({"chekpoint": {}}, "chekpoint is not a known key: did you mean 'checkpoint'?"),
        ({"checkpoint": {"every_records": "x"}}, f"checkpoint.every_records is text: expected a whole number; {MANY}"),
        ({"checkpoint": {"every_records": 0}}, f"checkpoint.every_records is 0: expected 1 or more; {MANY}"),
        ({"checkpoint": 7}, "checkpoint is 7: expected a section of keys"),
        (
            {"dead_letters": {"sink": {}}},
            "dead_letters.sink.type is missing: expected connector: log, kafka, file, or an installed one",
        ),
        ({"source": {"type": "lok"}}, "source 'lok' is not known: did you mean 'log'?"),
        ({"source": {"pahth": "x"}}, "source.pahth is not a known key: did you mean 'path'?"),
        ({"learner": {"name": "la-mamel"}}, "learner.name 'la-mamel' is not known: did you mean 'la-maml'?"),
        ({"learner": {"name": "la-maml", "glance": 3}}, "learner.glance is not a known key: did you mean 'glances'?"),
        (
            {"learner": {"name": "la-maml", "inner_chunks": 3}},
            "learner.inner_chunks is 3: expected a divisor of learner.chunk = 10",
        ),
        ({"model": {"hidden": "wide"}}, "model.hidden is text: expected a list"),
        (
            {"model": {"name": "module"}},
            "model: name is 'module', but nothing says which: expected module: 'package.module:factory' beside it",
        ),
        (
            {"model": {"name": "module", "module": "no.such:one"}},
            "model.module is 'no.such:one': expected 'package.module:factory' that can be imported",
        ),
        ({"serve": {"enabled": True, "prot": 1}}, "serve.prot is not a known key: did you mean 'port'?"),
        ({"device": "tpu"}, "device is 'tpu': expected cpu, cuda, cuda:N or auto"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_configuration_that_is_wrong_is_refused_with_2_by_the_name_of_its_key(forks: Forks, tmp_path, command, change, line):
    append(tmp_path / "samples.sqlite", samples(1))
    refused(forks.run(command, from_log(tmp_path, **change)), 2, line)


@pytest.mark.parametrize(
    ("reads", "line"),
    [
        ({"type": "log"}, "source.path is missing: expected the log's file; made empty when it is not there"),
        ({"type": "kafka", "bootstrap_servers": "127.0.0.1:1"}, "source.topics is missing: expected topics to read"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_source_that_lacks_a_key_is_refused_with_2_by_its_name(forks: Forks, tmp_path, command, reads, line):
    refused(forks.run(command, configured(tmp_path / "state", reads)), 2, line)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "configuration {} cannot be read: No such file or directory; expected a YAML file"),
        (b"source: [", "{} is not YAML: "),
        (b"just words", "configuration {} holds str: expected sections, like `source:`"),
        (b"", "configuration {} holds NoneType: expected sections, like `source:`"),
        (b"\xff\xfe\x00", "configuration {} cannot be read: "),
        (b"{}", "source is missing: expected where records come from; input is missing: expected what one input is"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_2(forks, tmp_path, content, reason):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    life = forks.run("run", path)
    assert life.wait() == 2
    assert life.stderr.startswith("streamlearn: " + reason.format(path))
    assert life.stderr.count("\n") == 1


def test_flags_win_over_the_environment_and_the_environment_over_the_file(forks, tmp_path):
    config, _ = on_log(tmp_path, 1, name="in-file", learner={"chunk": 2, "inner_chunks": 1}, label={"max_labels": 30})

    def checked(*flags, **environment):
        life = forks.run("check", config, "--json", *flags, **environment)
        assert life.wait() == 0, life.stderr
        facts = json.loads(life.stdout)
        return facts["model"], facts["learner"]

    environment = {"STREAMLEARN__NAME": "in-environment", "STREAMLEARN__LEARNER__CHUNK": "4"}
    assert checked() == ("in-file", "la-maml, chunk of 2")
    assert checked(**environment) == ("in-environment", "la-maml, chunk of 4")
    assert checked("--set", "learner.chunk=6", **environment) == ("in-environment", "la-maml, chunk of 6")
    flags = ["--set", "learner.chunk=6", "--set", "name=in-flag", "--set", "learner.chunk=8"]
    assert checked(*flags, **environment) == ("in-flag", "la-maml, chunk of 8")


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        (
            "STREAMLEARN__CHEKPOINT__KEEP",
            "environment variable STREAMLEARN__CHEKPOINT__KEEP names no section: did you mean STREAMLEARN__CHECKPOINT?",
        ),
        ("STREAMLEARN__CHECKPOINT__KEEEP", "checkpoint.keeep is not a known key: did you mean 'keep'?"),
    ],
)
def test_an_environment_variable_that_names_no_key_is_refused_with_2(forks, tmp_path, variable, line):
    refused(forks.run("run", from_log(tmp_path), **{variable: "1"}), 2, line)


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("checkpoint.keep", "--set 'checkpoint.keep' is not valid: expected section.key=value"),
        ("checkpoint.keep=[", "--set checkpoint.keep is not YAML: "),
        ("checkpoint.keep=0", "checkpoint.keep is 0: expected 1 or more; leave the key out for the default, 3"),
    ],
)
def test_a_flag_that_sets_nothing_is_refused_with_2(forks, tmp_path, flag, line):
    life = forks.run("run", from_log(tmp_path), "--set", flag)
    assert life.wait() == 2
    assert life.stderr.startswith(f"streamlearn: {line}")
    assert life.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["run"], ["rnu"], ["run", "a.yaml", "b.yaml"], ["replay", "a.yaml"], ["inspect"]])
def test_wrong_usage_is_2_and_shows_the_usage(forks, arguments):
    life = forks.run(*arguments)
    assert life.wait() == 2
    assert "Usage:" in life.stderr
    assert "Traceback" not in life.stderr


def test_help_names_every_command_and_the_version_is_printed(forks):
    life = forks.run("--help")
    assert life.wait() == 0
    assert all(f" {name} " in life.stdout for name in ("run", "demo", "check", "replay", "inspect"))
    assert forks.run("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("section", ["serve", "telemetry"])
def test_a_port_in_use_is_2_and_leaves_nothing_running(forks, tmp_path, section, processes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = {"enabled": True, "processes": processes, "port": 0, "grpc_port": None}
        changes = {"serve": serve, "telemetry": {"enabled": True, "port": 0}}
        changes[section] = changes[section] | {"port": port}
        line = {
            "serve": f"cannot listen at 127.0.0.1 port {port}: it is in use; stop the other program or choose another port",
            "telemetry": f"telemetry.port {port} on 127.0.0.1 cannot be opened (Address already in use): stop what holds it,"
            " or choose another; 0 takes a free one",
        }
        refused(forks.run("run", on_log(tmp_path, **changes)[0]), 2, line[section])


AWAY = {"type": "kafka", "bootstrap_servers": "127.0.0.1:1", "topics": ["a"], "timeout_s": 0.5}


def test_check_gives_an_unreachable_broker_ten_seconds_then_3(forks, tmp_path):
    began = time.monotonic()
    life = forks.run("check", configured(tmp_path / "state", AWAY))
    assert 9.0 < time.monotonic() - began < 20.0
    assert life.wait() == 3
    assert life.stderr.startswith("streamlearn: kafka 127.0.0.1:1: ")
    assert life.stderr.count("\n") == 1


def test_run_gives_an_unreachable_broker_the_time_it_is_told_then_3(forks, tmp_path):
    life = forks.run("run", configured(tmp_path / "state", AWAY | {"give_up_s": 1.0}))
    assert life.wait() == 3
    assert [event["event"] for event in life.events][-1] != "daemon.draining"
    assert "source.lost" in [event["event"] for event in life.events]
    assert life.stderr.splitlines()[-1].startswith("streamlearn: kafka 127.0.0.1:1: ")


def test_a_position_that_the_log_no_longer_holds_is_3_at_once(forks, tmp_path):
    config, state = on_log(tmp_path, 30)
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 30, "the last record's outcome")
    life.stop()
    for path in tmp_path.glob("samples.sqlite*"):
        path.unlink()
    append(tmp_path / "samples.sqlite", samples(5))
    path = tmp_path / "samples.sqlite"
    refused(
        forks.run("run", config),
        3,
        f"samples[0]@30 is saved, but {path} ends at 5: it was made anew or truncated; put the old file back, or start with an"
        " empty state directory",
    )


def test_a_locked_directory_is_4_and_its_owner_goes_on(forks, tmp_path):
    config, state = on_log(tmp_path, 15)
    owner = forks.start("run", config)
    owner.event("daemon.started")
    life = forks.run("run", config)
    assert life.wait() == 4
    line = f"streamlearn: state directory {state} is locked by process {owner.pid}: expected to be its only user"
    assert life.stderr.splitlines()[-1].startswith(line)
    owner.until(lambda: settled(state) == 15, "the last record's outcome")
    owner.stop()


def damaged(forks, tmp_path, *, records=30):
    config, state = on_log(tmp_path, records, checkpoint={"every_records": 10}, source={"poll_records": 10})
    life = forks.start("run", config)
    life.event("daemon.started")
    life.until(lambda: settled(state) == records, "the last record's outcome")
    life.stop()
    return config, state, sorted((state / "checkpoints").iterdir())


def test_a_damaged_checkpoint_is_passed_loudly_for_the_one_before_it(forks, tmp_path):
    config, state, kept = damaged(forks, tmp_path)
    (kept[-1] / "arrays.safetensors").write_bytes(b"torn")
    life = forks.start("run", config)
    event = life.event("checkpoint.damaged")
    assert (event["level"], event["name"], event["next_step"]) == ("error", kept[-1].name, "using the one before it")
    assert life.event("daemon.restored")["name"] == kept[-2].name
    life.until(lambda: settled(state) == 30, "the last record's outcome")
    life.stop()
    assert json.loads(forks.run("inspect", state, "--json").stdout)["counts"]["learned"] == 30


@pytest.mark.parametrize("records", [0, 30], ids=["one", "several"])
def test_when_all_checkpoints_are_damaged_the_start_is_refused_with_4_again_and_again(forks, tmp_path, records):
    config, state, kept = damaged(forks, tmp_path, records=records)
    assert (len(kept) > 1) == (records > 0)
    for folder in kept:
        (folder / "arrays.safetensors").write_bytes(b"torn")
    line = f"all {len(kept)} checkpoints in {state / 'checkpoints'} are damaged: restore one, or move them away"
    refused(forks.run("run", config), 4, line)
    refused(forks.run("run", config), 4, line)


def test_a_checkpoint_of_another_model_is_refused_with_4(forks, tmp_path):
    config, _, _ = damaged(forks, tmp_path)
    life = forks.run("run", config, "--set", "model.hidden=[13]")
    assert life.wait() == 4
    assert life.stderr.splitlines()[-1].startswith("streamlearn: checkpoint holds ")
    assert "keep the configured model, or start from an empty state" in life.stderr


def test_inspect_without_a_checkpoint_is_2(forks, tmp_path):
    line = f"{tmp_path} holds no checkpoint: expected the state_dir of a daemon that has run"
    refused(forks.run("inspect", tmp_path), 2, line)


BROKEN = """
from streamlearn.settings import Section

class Source:
    class Settings(Section):
        pass
    def __init__(self, settings):
        pass
    def seek(self, positions):
        pass
    def identities(self):
        return {}
    def positions(self):
        return {}
    def poll(self, max_records, timeout_s, paused=()):
        raise ZeroDivisionError("a fault in a connector")
    def close(self):
        pass

def factory(shape):
    raise ZeroDivisionError("a fault in a factory")
"""


def test_an_internal_fault_is_70_with_what_a_report_needs(forks, tmp_path):
    """A connector that is installed, and a network of one's own: each raises what it should not."""
    (tmp_path / "faulty.py").write_text(BROKEN)
    installed = tmp_path / "faulty-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[streamlearn.connectors]\nfaulty = faulty\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    connector = forks.execute("run", configured(tmp_path / "state", {"type": "faulty"}), **environment)
    assert connector.wait() == 70
    assert "Traceback" in connector.event("prefetch.failed")["exception"]
    assert connector.stderr.splitlines()[-1].startswith("streamlearn: the prefetch thread failed: ZeroDivisionError")
    network = forks.execute("run", from_log(tmp_path, model={"name": "module", "module": "faulty:factory"}), **environment)
    assert network.wait() == 70
    assert network.stderr.splitlines()[-1] == "ZeroDivisionError: a fault in a factory"


SECRET = "geheim-4711-geheim"  # noqa: S105
PLAIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "reader"}


def pages(life: Life, state) -> str:
    """All that a running daemon tells of itself."""
    metrics, server = (life.event(name)["port"] for name in ("metrics.listening", "server.listening"))
    texts = [httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=5.0).text]
    texts += [
        httpx.get(f"http://127.0.0.1:{server}{path}", timeout=5.0).text for path in ("/status.json", "/v2/models/model", "/")
    ]
    return "\n".join([*texts, (state / "status.json").read_text(), life.stderr, life.stdout])


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_secret_is_told_to_nobody(forks, tmp_path, where):
    client = PLAIN | ({"sasl_plain_password": SECRET} if where == "file" else {})
    environment = {"STREAMLEARN__SOURCE__CLIENT__SASL_PLAIN_PASSWORD": SECRET} if where == "environment" else {}
    environment |= {"STREAMLEARN__SERVE__TOKEN": SECRET}
    state = tmp_path / "state"
    serve = {"enabled": True, "processes": 0, "port": 0}
    config = configured(state, AWAY | {"client": client}, serve=serve, telemetry={"enabled": True, "port": 0})
    life = forks.start("run", config, **environment)
    life.event("source.lost")
    told = pages(life, state)
    assert "streamlearn_source_up 0" in told
    life.stop()
    assert SECRET not in told + life.stderr + "".join(p.read_text() for p in state.rglob("*.json*"))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"client": SECRET}, "source.client is text: expected a section of keys"),
        (
            {"client": {"sasl_plain_pasword": SECRET}},
            "source.client: 'sasl_plain_pasword' is no setting of kafka-python: did you mean 'sasl_plain_password'?",
        ),
        ({"pasword": SECRET}, "source.pasword is not a known key: known keys: "),
        ({"timeout_s": SECRET}, "source.timeout_s is text: expected a number; leave the key out for the default, 10.0"),
    ],
)
def test_a_secret_that_stands_in_the_wrong_place_is_not_echoed(forks, tmp_path, source, line):
    life = forks.run("check", configured(tmp_path / "state", AWAY | source))
    assert life.wait() == 2
    assert life.stderr.startswith(f"streamlearn: {line}")
    assert SECRET not in life.stderr + life.stdout


def test_a_token_of_digits_alone_is_not_echoed(forks, tmp_path):
    life = forks.run("run", from_log(tmp_path, serve={"enabled": True, "token": 47114711}))
    refused(life, 2, "serve.token is a number: expected text")


def test_check_says_what_would_run_and_reads_one_record(forks, tmp_path):
    config, state = on_log(tmp_path, 3)
    life = forks.run("check", config, "--json")
    assert life.wait() == 0, life.stderr
    facts = json.loads(life.stdout)
    assert facts["source"] == "log"
    assert facts["record"].startswith("samples[0]@0: label '")
    assert not state.exists(), "check leaves nothing behind"


def test_check_of_an_empty_source_says_so(forks, tmp_path):
    config, _ = on_log(tmp_path, 0)
    life = forks.run("check", config)
    assert life.wait() == 0
    assert "none within the time-out: the source is empty" in life.stdout


def test_check_of_a_first_record_that_cannot_be_decoded_is_2(forks, tmp_path):
    append(tmp_path / "samples.sqlite", [b'{"features": [1, 2], "label": 1}'])
    line = (
        "the first record cannot be decoded: samples[0]@0: field 'features' has shape [2], expected [6]; the record goes to the"
        " dead letters; check decode.format and input.shape"
    )
    refused(forks.run("check", from_log(tmp_path)), 2, line)


def test_the_end_of_a_file_is_a_clean_end(forks, tmp_path):
    """Run as a user runs it, from nothing."""
    (tmp_path / "samples.jsonl").write_bytes(b"".join(value + b"\n" for value in samples(25)))
    state = tmp_path / "state"
    life = forks.execute("run", configured(state, {"type": "file", "path": str(tmp_path / "samples.jsonl")}))
    assert life.wait() == 0, life.stderr
    assert [e["event"] for e in life.events if e["event"].startswith("daemon.")] == ["daemon.started", "daemon.draining"]
    assert life.event("daemon.draining")["reason"] == "end of source"
    kept = json.loads(forks.run("inspect", state, "--json").stdout)
    assert (kept["counts"]["learned"], kept["pending"]) == (20, 5)
    assert connectors.SOURCES["file"]
