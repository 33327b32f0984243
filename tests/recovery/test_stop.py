"""Signals, and servers that die with or without their daemon."""

import json
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from benchmarks.testbed.forks import Forks, Life, ended
from benchmarks.testbed.small import append, on_log, samples, settled

SERVED = {"enabled": True, "processes": 1, "port": 0}
HOSTS = [pytest.param(1, id="followers"), pytest.param(0, id="in process")]
QUESTION = {"inputs": [{"name": "features", "shape": [1, 6], "datatype": "FP32", "data": [0.5] * 6}]}


def address(life: Life) -> str:
    return f"http://127.0.0.1:{life.event('server.listening')['port']}"


def status_code(url: str) -> int | None:
    """Of one question over a connection of its own; None where nobody listens or answers."""
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=2.0).status_code
    return None


def ready(life: Life, url: str) -> None:
    life.until(lambda: status_code(f"{url}/v2/health/ready") == 200, "readiness")


def children(pid: int) -> list[int]:
    """Processes that it started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(path.parent.name))
    return found


def inspected(forks: Forks, state: Path) -> dict:
    return json.loads(forks.run("inspect", state, "--json").stdout)


def test_a_loop_that_does_not_turn_is_not_live_until_it_turns_again(tmp_path, forks):
    config, _ = on_log(tmp_path, 7, serve=SERVED | {"silent_s": 1.5, "stalled_s": 2.0})
    life = forks.start("run", config)
    url = address(life)
    ready(life, url)
    life.kill(signal.SIGSTOP)
    life.until(lambda: status_code(f"{url}/v2/health/live") == 503, "noticing that it hangs")
    assert httpx.get(f"{url}/v2/health/live", timeout=5.0).json()["live"] is False
    life.kill(signal.SIGCONT)
    life.until(lambda: status_code(f"{url}/v2/health/live") == 200, "turning again")
    life.stop(30.0)


@pytest.mark.parametrize("processes", HOSTS)
def test_a_signal_withdraws_readiness_then_checkpoints_all_that_was_read_then_ends_with_0(tmp_path, forks, processes):
    config, state = on_log(tmp_path, 57, serve=SERVED | {"processes": processes, "drain_s": 1.5})
    life = forks.start("run", config)
    url = address(life)
    ready(life, url)
    life.until(lambda: settled(state) == 57, "the last record's outcome")
    with httpx.Client(base_url=url, timeout=5.0) as client:
        assert client.get("/v2/health/ready").status_code == 200
        began = time.monotonic()
        life.kill(signal.SIGTERM)
        life.until(lambda: client.get("/v2/health/ready").status_code == 503, "withdrawing readiness")
        answer = client.post("/v2/models/model/infer", json=QUESTION)
        assert answer.status_code == 200, "who does not know yet is still answered"
        assert answer.json()["model_version"] == "5"
    assert life.wait(30.0) == 0
    assert time.monotonic() - began < 15.0
    assert status_code(f"{url}/v2/health/live") is None
    kept = inspected(forks, state)
    assert kept["positions"] == {"samples[0]": 57}
    assert (kept["counts"]["learned"], kept["pending"], kept["number"]) == (50, 7, 5)


@pytest.mark.parametrize("processes", HOSTS)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_and_the_checkpoint_stands(tmp_path, forks, processes, second):
    config, state = on_log(tmp_path, 20, serve=SERVED | {"processes": processes, "drain_s": 60.0})
    life = forks.start("run", config)
    ready(life, address(life))
    life.until(lambda: settled(state) == 20, "the last record's outcome")
    servers = children(life.pid)
    assert len(servers) == processes
    life.kill(signal.SIGINT)
    life.event("daemon.draining")
    life.until(lambda: list((state / "checkpoints").glob("[0-9]*")), "the last checkpoint")
    began = time.monotonic()
    life.kill(second)
    assert life.wait(10.0) == 128 + second
    assert time.monotonic() - began < 5.0
    assert inspected(forks, state)["positions"] == {"samples[0]": 20}
    until_gone(servers)


def until_gone(pids: list[int]) -> None:
    """Their parent is dead: the kernel ends them, in its own time."""
    deadline = time.monotonic() + 10.0
    while not all(ended(pid) for pid in pids):
        assert time.monotonic() < deadline, "a server outlived its daemon"
        time.sleep(0.001)


def test_a_follower_that_is_killed_is_started_again_and_answers(tmp_path, forks):
    config, state = on_log(tmp_path, 40, serve=SERVED)
    life = forks.start("run", config)
    url = address(life)
    ready(life, url)
    life.until(lambda: settled(state) == 40, "the last record's outcome")
    (killed,) = children(life.pid)
    Life(killed, life.folder, life.ending).kill()
    life.event("follower.died")
    ready(life, url)
    assert httpx.post(f"{url}/v2/models/model/infer", json=QUESTION, timeout=5.0).json()["model_version"] == "4"
    assert children(life.pid) not in ([], [killed])
    life.stop(30.0)


def test_a_killed_daemon_takes_its_followers_along_and_the_next_one_finds_the_port_free(tmp_path, forks):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config, state = on_log(
        tmp_path, 40, serve=SERVED | {"processes": 2, "port": port, "grpc_port": None}, checkpoint={"every_records": 10}
    )
    url = f"http://127.0.0.1:{port}"
    version = 0
    for _ in range(3):
        life = forks.start("run", config)
        ready(life, url)
        life.until(lambda: settled(state) == 40, "the last record's outcome")
        answer = httpx.post(f"{url}/v2/models/model/infer", json=QUESTION, timeout=5.0).json()
        assert int(answer["model_version"]) >= version
        version = int(answer["model_version"])
        servers = children(life.pid)
        assert len(servers) == 2
        life.kill()
        assert life.wait() == -9
        until_gone(servers)
    assert version == 4


def test_what_comes_after_a_stop_is_learned_after_the_next_start(tmp_path, forks):
    config, state = on_log(tmp_path, 15)
    for records in (15, 32):
        append(tmp_path / "samples.sqlite", samples(records)[15:])
        life = forks.start("run", config)
        life.until(lambda records=records: settled(state) == records, "the last record's outcome")
        life.stop(30.0)
    kept = inspected(forks, state)
    assert (kept["counts"]["learned"], kept["pending"]) == (30, 2)
