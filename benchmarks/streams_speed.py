"""Rows a second of the default learner and of river's adaptive random forest on the real streams, in turns, in one process.

    python -m benchmarks.streams_speed                              the first 10,000 rows of every stream: five minutes
    python -m benchmarks.streams_speed --streams covtype20k --rows 2000

Both answer and learn the same rows, 500 of them at a time, CPU time of one thread; the pool in one call for the 500, the
forest row by row, which is how each is called. Medians and quartiles are over turns. Streams that are not yet in
`docs/results/streams_speed.json` are run and put there; `benchmarks.streams_report` shows them.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import command_line, fill
from benchmarks.scores import quartiles
from benchmarks.stream_data import STREAMS, Stream, met, stream
from benchmarks.streams import compile_kernels, learner
from benchmarks.streams_baselines import METHODS, answered
from streamlearn.records import Batch, Json

RESULTS = Path(__file__).parents[1] / "docs/results/streams_speed.json"
RIVAL = "arf10"
TURN = 500


def main() -> None:
    """Run the streams that are asked for and missing."""
    parser = command_line(__doc__, RESULTS, seeds=(0,))
    parser.add_argument("--streams", nargs="+", default=STREAMS, choices=STREAMS)
    parser.add_argument("--rows", type=int, default=10_000, help="of each stream")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    compile_kernels("pool", {})
    for name in asked.streams:
        for seed in asked.seeds:
            fill(asked.results, f"{name}/{asked.rows}/{seed}", partial(compared, stream(name, asked.rows), seed))


def compared(data: Stream, seed: int) -> dict[str, Json]:
    """Rows a second of both and their ratio, each as [lower quartile, median, upper quartile] over turns."""
    pool, forest = learner("pool", {}, columns=data.x.shape[1], seed=seed), METHODS[RIVAL](seed)
    y = met(data.y)
    speeds: dict[str, list[float]] = {"pool": [], RIVAL: []}
    for start in range(0, len(y) - TURN + 1, TURN):
        part = slice(start, start + TURN)
        batch = Batch.of(data.x[part], y[part])
        rows, labels = [dict(enumerate(row)) for row in data.x[part].tolist()], y[part].tolist()
        speeds["pool"].append(TURN / _seconds(partial(pool.learn, batch)))
        speeds[RIVAL].append(TURN / _seconds(partial(answered, forest, rows, labels)))
    ratios = np.divide(speeds["pool"], speeds[RIVAL])
    return {
        "turns": len(ratios),
        "ratio": quartiles(ratios, 2),
        **{name: quartiles(np.array(values), 2) for name, values in speeds.items()},
    }


def _seconds(turn: Callable[[], object]) -> float:
    began = time.thread_time()
    turn()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
