"""Many clients at once: nothing fails and nothing mixes while the model changes, and too much work is refused at once."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.http import Settings
from streamlearn.serving.service import Service
from streamlearn.snapshot import FilePublisher, Reference
from tests.test_follower import ALL, DEADLINE_S, INFER, assert_of_one_snapshot, numbered

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


ROWS = 8192  # so much work that refusing costs nothing beside it
HEAVY = {
    "inputs": [{"name": "features", "shape": [ROWS, 2], "datatype": "FP32", "data": np.zeros(2 * ROWS).tolist()}],
    "outputs": [{"name": "probabilities"}],
}
BODY = json.dumps(HEAVY).encode()
REQUEST = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(), len(BODY)) + BODY
BOUND, TIMES_OVER = 4, 5
TURNS = 5  # of the server's loop, until a request is admitted or refused: the one under way, accept, listen, read, begin


def offered_s(each_s):
    """How long to offer, which is also the bound on every wait: 2 s, more where an answer takes more than a tenth of that.

    It follows from the bound on what is admitted. One answer is computed in a turn of the loop, so a request waits for at
    most one in each turn until it is admitted, then for those admitted before it, which are fewer than `BOUND`, and for its
    own. Twice that, for the machine may be busier now than when `each_s` was measured. A queue without a bound would be
    longer by far: offered five times what it can do, after as long as this it takes four times as long to empty.
    """
    return max(2.0, 2 * (TURNS + BOUND) * each_s)


async def asked(port, at_s):
    """(status, head, seconds since the instant at which it was due)."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(at_s - loop.time())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    said = await reader.read()
    writer.close()
    return int(said[9:12]), said.partition(b"\r\n\r\n")[0].lower(), loop.time() - at_s


async def offered(port, each_s):
    """Open loop: each is sent when it is due, whatever became of those before it."""
    begin, per_s = asyncio.get_running_loop().time() + 0.1, TIMES_OVER / each_s
    return await asyncio.gather(*(asked(port, begin + i / per_s) for i in range(int(offered_s(each_s) * per_s))))


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


async def alone(port):
    """Seconds of one such request when nothing else is asked."""
    loop = asyncio.get_running_loop()
    await asked(port, loop.time())
    begin = time.perf_counter()
    for _ in range(10):
        code, _, _ = await asked(port, loop.time())
        assert code == 200
    return (time.perf_counter() - begin) / 10
