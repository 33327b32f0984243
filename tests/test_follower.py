"""Servers as processes and as a thread: they answer, they come back, they end, and they carry nothing that they do not need."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.testbed.forks import ended
from benchmarks.testbed.numbered import ALL, INFER, assert_of_one_snapshot, numbered
from benchmarks.testbed.waiting import DEADLINE_S, until
from connectors.log import LogSource
from streamlearn.errors import ConfigError
from streamlearn.records import Answering, Snapshot
from streamlearn.serving.counts import counts_file
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.service import SamplesTo, Service, decode, encode, listen
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher, Reference


def service(**changes):
    limits = {name: changes.pop(name) for name in list(changes) if name in Settings.model_fields}
    return Service("digits", Settings(port=0, **limits), **changes)


@contextmanager
def followers(folder, told=None, count=1):
    running = Followers(told or service(), folder=folder, count=count)
    running.start()
    try:
        yield running, f"http://127.0.0.1:{running.port}"
    finally:
        running.stop(DEADLINE_S)


@contextmanager
def in_process(current, told=None):
    host = InProcess(told or service(), current)
    host.start()
    try:
        yield host, f"http://127.0.0.1:{host.port}"
    finally:
        host.stop(DEADLINE_S)


@pytest.fixture
def live(tmp_path):
    FilePublisher(tmp_path).publish(numbered(1))
    return tmp_path


def test_a_follower_answers_from_the_folder_and_from_each_newer_snapshot(live):
    with followers(live) as (running, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        assert assert_of_one_snapshot(client.post(INFER, json=ALL)) == 1, (
            "asked before it was up: the socket keeps the question"
        )
        assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
        FilePublisher(live).publish(numbered(2))
        until(lambda: assert_of_one_snapshot(client.post(INFER, json=ALL)) == 2, "the newer snapshot")
        assert running.is_alive()
        assert running.restarts == 0


def test_nothing_fails_and_nothing_mixes_while_snapshots_change(live):
    publisher, done = FilePublisher(live), threading.Event()

    def publish():
        number = 1
        while not done.is_set():
            number += 1
            publisher.publish(numbered(number))

    thread = threading.Thread(target=publish)
    with followers(live, count=2) as (_, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        client.get("/v2/health/live")
        thread.start()
        try:
            versions = [assert_of_one_snapshot(client.post(INFER, json=ALL)) for _ in range(600)]
        finally:
            done.set()
            thread.join()
    assert versions == sorted(versions), "one connection, so one follower, which never goes back"
    assert len(set(versions)) > 5


def test_a_follower_that_is_killed_is_started_again_and_the_socket_keeps_the_questions(live):
    with followers(live) as (running, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        client.get("/v2/health/live")
        for restarts in (1, 2):
            (pid,) = running.pids
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: ended(pid), "the end of the process")
            with httpx.Client(base_url=url, timeout=DEADLINE_S) as fresh:
                assert assert_of_one_snapshot(fresh.post(INFER, json=ALL)) == 1
            assert running.restarts == restarts
            assert running.pids != [pid]
            assert running.is_alive()


def test_stopping_finishes_what_is_in_progress_and_leaves_no_process(live):
    with followers(live, count=2) as (running, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        client.get("/v2/health/live")
        pids = until(lambda: running.pids if len(running.pids) == 2 else None, "the second follower")
        began = time.monotonic()
        running.stop(DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S / 2, "they drained, they were not killed"
        assert all(ended(pid) for pid in pids)
        assert not running.is_alive()
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/v2/health/live")


def test_while_draining_it_is_not_ready_and_still_answers(live):
    with followers(live, service(drain_s=60.0)) as (running, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        assert client.get("/v2/health/ready").status_code == 200
        (pid,) = running.pids
        os.kill(pid, signal.SIGTERM)
        until(lambda: client.get("/v2/health/ready").status_code == 503, "withdrawing readiness")
        assert assert_of_one_snapshot(client.post(INFER, json=ALL)) == 1
        os.kill(pid, signal.SIGTERM)
        until(lambda: ended(pid), "leaving at the second signal")


def test_a_follower_that_does_not_end_is_killed_at_the_deadline(live):
    with followers(live, service(drain_s=60.0)) as (running, url):
        httpx.get(f"{url}/v2/health/live", timeout=DEADLINE_S)
        (pid,) = running.pids
        running.stop(0.2)
        assert ended(pid)


PARENT = """
import structlog, sys, threading
from pathlib import Path
from streamlearn.serving.hosts import Followers
from streamlearn.serving.settings import Settings
from streamlearn.serving.service import Service
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
running = Followers(Service("digits", Settings(port=0)), folder=Path(sys.argv[1]), count=2)
running.start()
while len(running.pids) < 2:
    pass
print(running.port, *running.pids, flush=True)
threading.Event().wait()
"""


def test_followers_end_with_their_parent_and_free_its_port(live):
    with subprocess.Popen([sys.executable, "-c", PARENT, str(live)], stdout=subprocess.PIPE, text=True) as parent:
        port, *pids = map(int, parent.stdout.readline().split())
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=DEADLINE_S).status_code == 200
        parent.kill()
        parent.wait()
        until(lambda: all(ended(pid) for pid in pids), "the end of the followers")
    until(lambda: can_listen(port), "freeing the port")


def can_listen(port):
    with suppress(ConfigError):
        listen("127.0.0.1", port).close()
        return True
    return False


def follower_command(folder, sock):
    return ["-m", "streamlearn.serving.follower", "--follow", str(folder), "--index", "0", "--fd", str(sock.fileno())]


def test_a_follower_ends_when_the_pipe_from_its_parent_does(live):
    """The way that works everywhere; on Linux the kernel tells it too."""
    with listen("127.0.0.1", 0) as sock:
        command = [sys.executable, *follower_command(live, sock)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[sock.fileno()])
        try:
            process.stdin.write(encode(service()) + b"\n")
            process.stdin.flush()
            url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            assert httpx.get(f"{url}/v2/health/ready", timeout=DEADLINE_S).status_code == 200
            process.stdin.close()
            assert process.wait(DEADLINE_S) == 1
        finally:
            process.kill()
            process.wait()


def test_a_follower_loads_neither_torch_nor_river_nor_a_client_of_kafka(live):
    """Every import that the interpreter names, up to and with an answer from the form most models have."""
    with listen("127.0.0.1", 0) as sock:
        command = [sys.executable, "-X", "importtime", *follower_command(live, sock)]
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, pass_fds=[sock.fileno()], **pipes) as process:
            process.stdin.write(encode(service(samples=SamplesTo("log", {"path": str(live / "log.sqlite")}))) + b"\n")
            process.stdin.flush()
            errors = in_background(process.stderr)
            with httpx.Client(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=DEADLINE_S) as client:
                assert_of_one_snapshot(client.post(INFER, json=ALL))
                assert client.post("/v2/models/digits/samples", json={"features": [1, 2], "label": 1}).status_code == 200
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
            imported = set(re.findall(r"\| +(\w+)", errors()))
    assert {"numpy", "uvicorn", "streamlearn", "sqlite3"} <= imported
    assert imported.isdisjoint({"torch", "river", "kafka", "safetensors", "numba", "sklearn", "scipy", "pandas", "yaml"})


def in_background(pipe):
    """What a pipe says until its end, read all the while so that its writer never waits."""
    said = []
    thread = threading.Thread(target=lambda: said.append(pipe.read().decode()))
    thread.start()

    def whole():
        thread.join()
        return said[0]

    return whole


def test_samples_are_in_the_log_when_they_are_acknowledged(live, tmp_path):
    path = tmp_path / "log.sqlite"
    told = service(samples=SamplesTo("log", {"path": str(path)}))
    for host in (followers(live, told), in_process(published(), told)):
        with host as (_, url):
            given = [{"features": [1, 2], "label": "cat", "id": "a"}, {"features": [3, 4], "label": 5}]
            answer = httpx.post(f"{url}/v2/models/digits/samples", json=given, timeout=DEADLINE_S)
            assert answer.json() == {"accepted": 2}
    source = LogSource(LogSource.Settings(path=path))
    source.seek({})
    records = source.poll(10, 0.0)
    source.close()
    assert [json.loads(record.value) for record in records] == given * 2
    assert [record.key for record in records] == [b"a", None] * 2


def published(number=1):
    reference = Reference()
    reference.publish(numbered(number))
    return reference


def test_a_sink_that_cannot_be_made_stops_the_start_and_not_each_follower(live):
    for told in (SamplesTo("lok", {}), SamplesTo("log", {"pahth": "x"})):
        with pytest.raises(ConfigError, match="samples"):
            Followers(service(samples=told), folder=live).start()
        with pytest.raises(ConfigError, match="samples"):
            InProcess(service(samples=told), published()).start()


def test_a_port_in_use_is_named(live):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = Service("digits", Settings(port=port))
        for host in (Followers(told, folder=live), InProcess(told, published())):
            with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1 port {port}: it is in use"):
                host.start()
            host.stop(0.0)


def test_a_host_that_is_no_address_is_named(live):
    with pytest.raises(ConfigError, match=r"cannot listen at no\.such\.host\.invalid port 1"):
        listen("no.such.host.invalid", 1)


def test_followers_tell_what_they_did(live):
    counts_file(live, 7).write_text("of an earlier run")
    with followers(live) as (_, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        client.post(INFER, json=ALL)
        client.post(INFER, content=b"junk")
        path = counts_file(live, 0)
        until(lambda: path.exists() and json.loads(path.read_bytes())["requests"] == {"200": 1, "400": 1}, "telling")
        told = json.loads(path.read_bytes())
        assert told["served_number"] == 1
        assert 0 <= told["age_seconds"] < DEADLINE_S
        assert sum(told["seconds"]["counts"]) == 2
        (live / "snapshot.safetensors").rename(live / "old")
        (live / "snapshot.safetensors").write_bytes(b"torn")
        until(lambda: json.loads(path.read_bytes())["failed_loads"] == 1, "counting the torn file")
        assert assert_of_one_snapshot(client.post(INFER, json=ALL)) == 1
    assert not counts_file(live, 7).exists()


def test_a_follower_says_why_it_ended(live):
    with listen("127.0.0.1", 0) as sock:
        command = [sys.executable, *follower_command(live, sock)]
        found = subprocess.run(command, input=b"{}\n", pass_fds=[sock.fileno()], capture_output=True, check=False)
    assert found.returncode == 2
    assert json.loads(found.stderr)["event"] == "follower.ended"
    assert b"Traceback" not in found.stderr


def test_what_a_server_is_told_survives_the_pipe_and_keeps_its_secret_from_logs():
    told = service(token="geheim-und-lang-genug", module="a.b:c", samples=SamplesTo("log", {"path": "x"}), status="s.json")  # noqa: S106
    assert decode(encode(told)) == told
    assert b"\n" not in encode(told)
    assert decode(encode(told)).settings.token.get_secret_value() == "geheim-und-lang-genug"
    assert "geheim-und-lang-genug" not in repr(told)


STANDALONE = """
import sys
from pathlib import Path
from streamlearn.serving.follower import run
from streamlearn.serving.settings import Settings
from streamlearn.serving.service import Service
sys.exit(run(Service("digits", Settings(port=int(sys.argv[2]))), Path(sys.argv[1])))
"""


def test_servers_without_a_parent_share_a_port_and_end_on_a_signal(live):
    with listen("127.0.0.1", 0, shared=True) as sock:
        port = sock.getsockname()[1]
    processes = []
    try:
        for count in (1, 2):
            processes.append(subprocess.Popen([sys.executable, "-c", STANDALONE, str(live), str(port)]))
            until(lambda count=count: listeners(port) == count, "listening")
            until(lambda: answers(port), "an answer")
        for number, process in zip((signal.SIGTERM, signal.SIGINT), processes, strict=True):
            until(lambda: answers(port), "an answer")
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert list(live.glob("follower-*")) == []


def listeners(port):
    """How many sockets listen at a port of this machine; 0A is the kernel's word for listening."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def answers(port):
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1.0).status_code == 200
    return False


def test_in_process_the_newest_reference_answers_at_once():
    reference = published(1)
    before = sys.getswitchinterval()
    with in_process(reference) as (host, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        for number in range(1, 100):
            reference.publish(numbered(number))
            assert assert_of_one_snapshot(client.post(INFER, json=ALL)) == number
        assert host.told()["requests"] == {"200": 99}
        assert host.is_alive()
        assert sys.getswitchinterval() < before
    assert not host.is_alive()
    assert sys.getswitchinterval() == before
    assert threading.active_count() == len(threading.enumerate())
    assert "server" not in {thread.name for thread in threading.enumerate()}


def test_a_host_that_never_started_can_be_stopped(live):
    Followers(service(), folder=live).stop(0.0)
    InProcess(service(), published()).stop(0.0)


def test_a_module_that_only_a_snapshot_names_is_not_imported():
    """P8: a model of the user's own is served when whoever starts the server names its factory, not when a file does."""
    reference = published(1)
    application = service().application(reference)
    settings = {"model": {"name": "module", "module": "evil:factory"}, "shape": [2]}
    for number in (1, 2):
        assert application.served().snapshot.number == 1
        assert application.endpoint.counts.failed_loads == number - 1
        reference.publish(Snapshot(2, Answering("torch", {"active": np.ones(1, np.uint8)}, settings), (1,), (2,), 0))
    application.close()
    assert "evil" not in sys.modules


def test_a_server_in_the_learners_process_tries_the_newest_though_nobody_asks():
    reference = Reference()
    with in_process(reference) as (host, _):
        for number in (1, 2):
            reference.publish(replace(numbered(number), published_ms=number * 1500))
            host.look()
            until(lambda number=number: host.told()["served_number"] == number, "the newest")
            assert host.told()["served_time_seconds"] == number * 1.5
    host.look()  # it has ended: nothing happens
