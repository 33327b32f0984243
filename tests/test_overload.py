"""Many clients at once: nothing fails and nothing mixes while the model changes, and too much work is refused at once."""

import asyncio
import threading
from contextlib import contextmanager

import httpx
import pytest

from benchmarks.testbed.numbered import ALL, INFER, assert_of_one_snapshot, numbered
from benchmarks.testbed.overload import BOUND, ROWS, TURNS, alone, offered, offered_s
from benchmarks.testbed.waiting import DEADLINE_S
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.service import Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher, Reference

CLIENTS, ROUNDS, PER_S = 8, 100, 10


@contextmanager
def running(kind, folder, **limits):
    """A host and its publisher."""
    service = Service("digits", Settings(port=0, **limits))
    publisher = Reference() if kind == "in_process" else FilePublisher(folder)
    publisher.publish(numbered(1))
    host = InProcess(service, publisher) if kind == "in_process" else Followers(service, folder=folder, count=2)
    host.start()
    try:
        yield publisher, f"http://127.0.0.1:{host.port}"
    finally:
        host.stop(DEADLINE_S)


@pytest.mark.parametrize("kind", ["follower", "in_process"])
def test_no_request_fails_and_no_answer_mixes_while_snapshots_change_ten_times_a_second(kind, tmp_path):
    """Every snapshot says its number as its label, in the set of its labels, and in its probabilities."""
    done, versions = threading.Event(), [[] for _ in range(CLIENTS)]

    def publish(publisher):
        number = 1
        while not done.wait(1 / PER_S):
            number += 1
            publisher.publish(numbered(number))

    def ask(url, seen):
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
            client.get("/v2/health/live")
            while len(seen) < ROUNDS or len(set(seen)) < 5:
                seen.append(assert_of_one_snapshot(client.post(INFER, json=ALL)))
                assert len(seen) < 100_000, "the model does not change"

    failed = []

    def guarded(url, seen):
        try:
            ask(url, seen)
        except (AssertionError, httpx.HTTPError) as error:
            failed.append(error)

    with running(kind, tmp_path) as (publisher, url):
        publishing = threading.Thread(target=publish, args=(publisher,))
        asking = [threading.Thread(target=guarded, args=(url, seen)) for seen in versions]
        for thread in (publishing, *asking):
            thread.start()
        for thread in asking:
            thread.join()
        done.set()
        publishing.join()
    assert not failed, failed[0]
    assert all(seen == sorted(seen) for seen in versions), "one connection, so one server, which never goes back"


def test_more_than_it_can_do_is_refused_at_once_and_the_rest_is_answered_in_time(tmp_path):
    """Five times its capacity: a queue without a bound would be four times as long as the time for which it was offered."""
    service = Service("digits", Settings(port=0, max_in_progress=BOUND, max_rows=ROWS))
    FilePublisher(tmp_path).publish(numbered(1))
    host = Followers(service, folder=tmp_path)
    host.start()
    try:
        each_s = asyncio.run(alone(host.port))
        answers = asyncio.run(offered(host.port, each_s))
    finally:
        host.stop(DEADLINE_S)
    codes = [code for code, _, _ in answers]
    assert set(codes) == {200, 503}
    assert all(b"\r\nretry-after: 1" in head for code, head, _ in answers if code == 503)
    assert codes.count(200) * each_s > offered_s(each_s) / 4, "it goes on answering what it can"
    late_s = sorted(seconds for _, _, seconds in answers)
    assert late_s[-1] < offered_s(each_s), f"{TURNS + BOUND} answers of {each_s:.3f} s are what anybody waits for"
