"""Going back while the daemon runs: asked over HTTP, served at once, under a number that no other state ever had."""

import json
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.small import configured, on_log, settled
from streamlearn import control
from streamlearn.checkpoint import Checkpoints
from streamlearn.control import Requests, go_back, kept
from streamlearn.errors import CheckpointError
from streamlearn.inspection import inspected
from tests.test_prequential import stream

TOKEN = "admins-only-0123456789"  # noqa: S105  a test's
WRITER = "writers-0123456789-abc"
INFER = {"inputs": [{"name": "features", "shape": [1, 6], "datatype": "FP32", "data": [0.5] * 6}]}


class Daemon:
    """On the embedded log, with three tokens' worth of roles; every checkpoint is kept."""

    def __init__(self, folder, forks, *, processes=0):
        (self.port,) = free_ports(1)
        tokens = [{"role": "admin", "token": TOKEN}, {"role": "write", "token": WRITER}]
        serve = {"enabled": True, "processes": processes, "port": self.port, "tokens": tokens, "grpc_port": None}
        kept_ = {"every_records": 40, "keep": 100}
        self.config, self.state = on_log(folder, 200, serve=serve, checkpoint=kept_)
        self._forks = forks

    def start(self, records=200):
        self.life = self._forks.start("run", self.config, "--set", "source.poll_records=20")
        self.life.until(lambda: settled(self.state) >= records and self.ready(), "all records")
        return self.life

    def ready(self):
        with suppress(OSError):
            return self.ask("GET", "/v2/health/ready")[0] == 200

    def ask(self, method, path, body=None, token=TOKEN):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def load(self, version, **more):
        return self.ask("POST", "/v2/repository/models/model/load", {"parameters": {"version": str(version), **more}})

    def drained(self):
        self.life.stop()
        return inspected(self.state)


@pytest.fixture
def daemon(tmp_path, forks):
    made = Daemon(tmp_path, forks)
    made.start()
    return made


def older(daemon):
    """Name and number of a checkpoint from the midst of the stream, and its digest."""
    store = Checkpoints(daemon.state / "checkpoints")
    facts = [inspected(daemon.state, name) for name in store.names()]
    return next(each for each in facts if 0 < each["number"] < 15)


def test_an_older_checkpoint_is_served_at_once_and_learning_goes_on_from_the_current_positions(daemon):
    old = older(daemon)
    status, index = daemon.ask("POST", "/v2/repository/index", {})
    assert status == 200
    assert {"name": "model", "version": "20", "state": "READY", "reason": ""} in index
    assert str(old["number"]) in {each["version"] for each in index if each["state"] == "UNAVAILABLE"}
    assert daemon.ask("POST", "/v2/repository/index", {"ready": True})[1] == index[:1]

    assert daemon.load(old["number"], resume="now") == (200, {"name": "model", "version": "21", "loaded": str(old["number"])})
    assert daemon.ask("POST", "/v2/models/model/infer", INFER)[1]["model_version"] == "21"
    assert "model_repository" in daemon.ask("GET", "/v2")[1]["extensions"]
    daemon.life.kill()  # durable before it was acknowledged
    daemon.life.wait()
    daemon.start(0)
    found = daemon.drained()
    assert (found["model_digest"], found["number"]) == (old["model_digest"], 21)
    assert found["positions"] == {"samples[0]": 200}
    assert found["counts"]["skipped"] == 200 - old["positions"]["samples[0]"]


def test_with_replay_it_learns_again_from_the_older_positions_while_it_runs(daemon, tmp_path, forks):
    old = older(daemon)
    version = int(daemon.load(old["number"])[1]["version"])
    again = version + 20 - old["number"]
    path = "/v2/models/model/infer"
    daemon.life.until(lambda: daemon.ask("POST", path, INFER)[1]["model_version"] == str(again), "what was learned again")
    went = daemon.drained()
    assert (went["number"], went["positions"], went["counts"]["skipped"]) == (again, {"samples[0]": 200}, 0)
    straight = tmp_path / "straight"
    life = forks.start("run", configured(straight, {"type": "log", "path": str(tmp_path / "samples.sqlite")}))
    life.until(lambda: settled(straight) >= 200, "all records")
    life.stop()
    assert went["model_digest"] == inspected(straight)["model_digest"]


def test_what_cannot_be_loaded_changes_nothing(daemon):
    before = daemon.ask("POST", "/v2/models/model/infer", INFER)[1]
    status, said = daemon.load(999)
    assert status == 404
    assert said["error"].startswith("no checkpoint of number 999 is kept: found numbers ")
    for bad in ("-1", "01", "1.5", "../1", "9" * 30, ""):
        assert daemon.load(bad)[0] == 400
    assert daemon.load(3, resume="later")[0] == 400
    assert daemon.ask("POST", "/v2/repository/models/model/load", {})[0] == 400
    assert daemon.ask("POST", "/v2/repository/models/other/load", {"parameters": {"version": "3"}})[0] == 404
    for token, refused in ((None, 401), (WRITER, 403)):
        assert daemon.ask("POST", "/v2/repository/models/model/load", {"parameters": {"version": "3"}}, token)[0] == refused
    assert daemon.ask("POST", "/v2/models/model/infer", INFER)[1] == before


def test_a_server_of_its_own_process_passes_it_on(tmp_path, forks):
    daemon = Daemon(tmp_path, forks, processes=1)
    daemon.start()
    old = older(daemon)
    version = int(daemon.load(old["number"], resume="now")[1]["version"])
    assert int(daemon.ask("POST", "/v2/models/model/infer", INFER)[1]["model_version"]) == version == 21
    daemon.drained()


@pytest.mark.parametrize("deadly", ["before it is saved", "after"])
def test_killed_in_the_midst_of_going_back_it_is_either_there_or_back(tmp_path, monkeypatch, deadly):
    """Not at a place in between, and not waiting for anything."""
    values = stream(60)

    class Killed(BaseException):
        pass

    def killing(self, *arguments, **named):
        if deadly == "after":
            save(self, *arguments, **named)
        raise Killed

    save = Checkpoints.save
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 6), every_records=12) as loop:
        while not loop.intake.drained:
            loop.turn(1.0)
            loop.writer.wait()
        numbers = [loop.writer.store.number(name) for name in loop.writer.store.names()]
        straight = loop.checkpoint()
        old = kept(loop.writer.store, numbers[1])
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Checkpoints, "save", killing)
            go_back(loop, old, "replay", now_ms=0)
    with started(tmp_path, MemorySource({"a[0]": values}), every_records=1000) as loop:
        assert loop.tally.number == (straight.number + 1 if deadly == "after" else numbers[-1])
        drain(loop)
        while loop.journal.script:
            loop.turn(0.0)
        found = loop.checkpoint()
    assert found.model_digest == straight.model_digest
    assert found.number == straight.number + (straight.number + 1 - old.number if deadly == "after" else 0)


def test_while_a_journal_is_followed_nobody_goes_back(tmp_path):
    with started(tmp_path, MemorySource({"a[0]": stream(30)}), every_records=1000) as loop:
        drain(loop)
        loop.begin_checkpoint()
        loop.writer.wait()
        loop.journal.script.append({"kind": "order", "partition": "a[0]", "until": 31})
        with pytest.raises(CheckpointError, match="is still being learned again"):
            go_back(loop, kept(loop.writer.store, loop.tally.number), "replay", now_ms=0)
        loop.journal.script.clear()


def test_requests_of_an_earlier_life_are_not_obeyed_and_nonsense_is_answered(tmp_path):
    requests = Requests(tmp_path)
    (tmp_path / f"old{control.REQUEST}").write_text('{"kind": "load", "number": 3}')
    requests.begin()
    assert requests.next() is None
    (tmp_path / f"bad{control.REQUEST}").write_text('{"kind": "unload"}')
    assert requests.next() is None
    assert json.loads((tmp_path / f"bad{control.ANSWER}").read_bytes())["status"] == 400
