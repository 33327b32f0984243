"""The learner of the real streams on the paper's: accuracy over all tasks after the last one, by what is asked about.

    python -m benchmarks.streams_paper                              Rotations and Permutations, five seeds, all test images
    python -m benchmarks.streams_paper --every 10 --seeds 0         every tenth test image of each task

The settings are those of the streams; that an image is an array, and not 784 columns, is said as for any array. Runs are kept
in `docs/results/streams_paper.json`, and one that is there is not made again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.images import Images, images
from benchmarks.scores import figure
from benchmarks.streams import write
from benchmarks.tasks import STREAMS, samples, views
from streamlearn.learners.pool import Pool
from streamlearn.learners.task import Task
from streamlearn.records import About, Batch, Json
from streamlearn.settings import read

RESULTS = Path(__file__).parents[1] / "docs/results/streams_paper.json"
ABOUT: tuple[About, ...] = ("auto", "now", "ever")
ARRAY: Mapping[str, Json] = {"inputs": {"kind": "array"}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, then write the table beside them."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    source = images()
    kept: dict[str, Json] = json.loads(given.out.read_text()) if given.out.exists() else {"data": source.name, "runs": {}}
    for stream in given.streams:
        for seed in given.seeds:
            name = f"{stream}/{given.name}/{len(source.y_test[:: given.every])}/{seed}"
            if name not in kept["runs"]:
                found = run(source, stream, {**ARRAY, **given.learner}, seed=seed, every=given.every, asked=given.about)
                kept["runs"][name] = {**found, "command": shlex.join(["python", "-m", "benchmarks.streams_paper", *arguments])}
                write(given.out, kept)
                print(name, found, flush=True)
    given.out.with_suffix(".md").write_text("\n".join(["# The pool on the paper's streams\n", *table(kept["runs"]), ""]))
    return 0


def run(
    source: Images, stream: str, settings: Mapping[str, Json], *, seed: int, every: int, asked: Sequence[About] = ABOUT
) -> dict[str, Json]:
    """One pass over all tasks; then each is asked about, by every test image or every so many."""
    shape, pixels = STREAMS[stream], int(np.prod(source.x_test.shape[1:]))
    made = Pool(read(Pool.Settings, settings, path="learner"), Task((pixels,), max_labels=10, seed=seed))
    rows, began = 0, time.process_time()
    for x, y in samples(source, shape, seed):
        made.learn(Batch.of(x, y))
        rows += len(y)
    seconds = time.process_time() - began
    kept: dict[str, Json] = {about: [] for about in asked}
    for view in views(shape, pixels):
        x, y = view.seen(source.x_test[::every]), source.y_test[::every]
        for about in asked:
            kept[about].append(100 * float((made.predict(x, about=about).argmax(1) == y).mean()))
    retained = {about: round(float(np.mean(values)), 3) for about, values in kept.items()}
    return {**retained, "seconds": round(seconds, 2), "samples_per_s": round(rows / seconds, 1)}


def table(runs: Mapping[str, Json]) -> list[str]:
    """Markdown: mean and spread over seeds."""
    lines = [
        "RA in per cent: accuracy over all tasks after the last one, by what the question is about. Mean ± standard deviation",
        "over seeds. Published for La-MAML: Rotations 77.42, Permutations 74.34.\n",
        "| stream | learner | test images a task | seeds | auto | now | ever | samples/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group in sorted({name.rsplit("/", 1)[0] for name in runs}):
        own = [run for name, run in runs.items() if name.rsplit("/", 1)[0] == group]
        figures = [figure([run[about] for run in own], 2) if all(about in run for run in own) else "" for about in ABOUT]
        speed = f"{np.median([run['samples_per_s'] for run in own]):,.0f}"
        lines.append(f"| {' | '.join([*group.split('/'), str(len(own)), *figures, speed])} |")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", default=("rotations", "permutations"), choices=list(STREAMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--every", type=int, default=1, help="of each task, every so manyth test image is asked")
    parser.add_argument("--about", nargs="+", default=ABOUT, choices=ABOUT, help="what is asked about")
    parser.add_argument("--name", default="pool")
    parser.add_argument("--learner", type=json.loads, default={}, help="its settings, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
