"""Processors and priority: the learner has its share, servers have theirs, and what cannot be had is said at the start."""

import errno
import os
from pathlib import Path

import pytest

from benchmarks.testbed.forks import Forks
from benchmarks.testbed.small import on_log, settled
from streamlearn.errors import ConfigError
from streamlearn.settings import read
from streamlearn.share import GIVES_WAY, Share

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no processors for a thread")
PROCESSORS = sorted(os.sched_getaffinity(0))


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.parametrize("server_has_its_own", [True, False])
def test_the_learner_has_its_share_and_a_server_its_own_or_all(forks: Forks, tmp_path: Path, server_has_its_own: bool) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    learner, server = {"cpus": PROCESSORS[:1], "nice": nice + 5}, {"cpus": PROCESSORS[-1:], "nice": nice + 2}
    serve = {"port": 0, "enabled": True, "processes": 1} | (server if server_has_its_own else {})
    config, state = on_log(tmp_path, 20, process=learner, serve=serve)
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 20 and children(life.pid), "all learned, and a server")
    assert (os.sched_getaffinity(life.pid), os.getpriority(os.PRIO_PROCESS, life.pid)) == (set(PROCESSORS[:1]), nice + 5)
    (follower,) = children(life.pid)
    expected = (set(PROCESSORS[-1:]), nice + 2) if server_has_its_own else (set(PROCESSORS), nice)
    assert (os.sched_getaffinity(follower), os.getpriority(os.PRIO_PROCESS, follower)) == expected
    life.stop()


@pytest.mark.parametrize("processes", [0, 1])
def test_a_learner_that_is_told_nothing_gives_way_to_its_servers_alone(forks: Forks, tmp_path: Path, processes: int) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    config, state = on_log(tmp_path, 20, serve={"port": 0, "enabled": True, "processes": processes})
    life = forks.start("run", config)
    life.until(lambda: settled(state) == 20 and len(children(life.pid)) == processes, "all learned, and its servers")
    assert os.getpriority(os.PRIO_PROCESS, life.pid) == (min(19, nice + GIVES_WAY) if processes else nice)
    assert [os.getpriority(os.PRIO_PROCESS, child) for child in children(life.pid)] == [nice] * processes
    life.kill(15)
    assert life.wait() == 0, life.stderr


def test_processors_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=rf"^process.cpus: found \[0, 9999\]: expected some of \[{PROCESSORS[0]}"):
        read(Share, {"cpus": [0, 9999]}, path="process")


def test_a_priority_that_may_not_be_had_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refused)
    now = os.getpriority(os.PRIO_PROCESS, 0)
    with pytest.raises(ConfigError, match=rf"^serve.nice is -5, and .*: Permission denied; expected {now} or more"):
        Share(nice=-5).check("serve")


def test_trying_leaves_the_thread_as_it_was() -> None:
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    Share(cpus=(PROCESSORS[0],), nice=before[1] + 1).check("process")
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == before
