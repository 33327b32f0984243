"""Requests so heavy that refusing one costs nothing beside answering it, offered faster than they can be answered."""

import asyncio
import json
import time
from typing import TypeAlias

import numpy as np

from benchmarks.testbed.numbered import INFER

Answer: TypeAlias = tuple[int, bytes, float]
"""Status, head, and seconds since the instant at which it was due."""
ROWS = 8192  # so much work that refusing costs nothing beside it
HEAVY = {
    "inputs": [{"name": "features", "shape": [ROWS, 2], "datatype": "FP32", "data": np.zeros(2 * ROWS).tolist()}],
    "outputs": [{"name": "probabilities"}],
}
BODY = json.dumps(HEAVY).encode()
REQUEST = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(), len(BODY)) + BODY
BOUND, TIMES_OVER = 4, 5
TURNS = 5  # of the server's loop, until a request is admitted or refused: the one under way, accept, listen, read, begin


def offered_s(each_s: float) -> float:
    """How long to offer, which is also the bound on every wait: 2 s, more where an answer takes more than a tenth of that.

    It follows from the bound on what is admitted. One answer is computed in a turn of the loop, so a request waits for at
    most one in each turn until it is admitted, then for those admitted before it, which are fewer than `BOUND`, and for its
    own. Twice that, for the machine may be busier now than when `each_s` was measured. A queue without a bound would be
    longer by far: offered five times what it can do, after as long as this it takes four times as long to empty.
    """
    return max(2.0, 2 * (TURNS + BOUND) * each_s)


async def asked(port: int, at_s: float) -> Answer:
    """One request, sent when it is due."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(at_s - loop.time())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    said = await reader.read()
    writer.close()
    return int(said[9:12]), said.partition(b"\r\n\r\n")[0].lower(), loop.time() - at_s


async def offered(port: int, each_s: float) -> list[Answer]:
    """Open loop: each is sent when it is due, whatever became of those before it."""
    begin, per_s = asyncio.get_running_loop().time() + 0.1, TIMES_OVER / each_s
    return await asyncio.gather(*(asked(port, begin + i / per_s) for i in range(int(offered_s(each_s) * per_s))))


async def alone(port: int) -> float:
    """Seconds of one such request when nothing else is asked."""
    loop = asyncio.get_running_loop()
    await asked(port, loop.time())
    begin = time.perf_counter()
    for _ in range(10):
        code, _, _ = await asked(port, loop.time())
        assert code == 200
    return (time.perf_counter() - begin) / 10
