"""Settings of the sliding look-ahead: how they were chosen, and what each part of it is worth.

    python -m benchmarks.sliding tuning
    python -m benchmarks.sliding ablation --seeds 0 1 2

`tuning` sees no test image: it asks about training images that are held back from the stream; of some settings only over the
first half of each stream's tasks, with half the memory. `ablation` changes one thing after the other on MNIST Rotations, with
all test images. Both go on where they were stopped, and write a table beside their figures in docs/results.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.cells import keep, known, machine
from benchmarks.images import Images, images
from benchmarks.paper import measured, x_size
from benchmarks.sliding_plan import CANDIDATES, NOT_AVERAGED, PARTS, Options
from benchmarks.sliding_report import table
from benchmarks.tasks import STREAMS, Shape, samples, views
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.records import Json

RESULTS = Path(__file__).parent.parent / "docs" / "results"
HELD_BACK = 1000


def main() -> None:
    """Make the runs that are missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    results = asked.results or RESULTS / f"sliding_{asked.what}.json"
    for name, stream, shape, options in planned(asked.what, asked.only):
        for seed in asked.seeds or ([100] if asked.what == "tuning" else [0, 1, 2]):
            if f"{stream}/{name}/{seed}" not in known(results):
                cell = run(without_test_images(images()) if asked.what == "tuning" else images(), shape, options, seed)
                keep(results, f"{stream}/{name}/{seed}", cell)
                print(stream, name, seed, cell, flush=True)
    names = list(CANDIDATES if asked.what == "tuning" else PARTS)
    results.with_suffix(".md").write_text(table(asked.what, names, known(results), machine()))


def planned(what: str, only: Sequence[str] = ()) -> Iterator[tuple[str, str, Shape, Options]]:
    """Name, stream, its shape, and settings of every run but for seeds; of all names where `only` names none."""
    if what == "ablation":
        for name in only or PARTS:
            yield name, "rotations", STREAMS["rotations"], {**NOT_AVERAGED, **PARTS[name]}
    else:
        for name in only or CANDIDATES:
            part, options = CANDIDATES[name]
            for stream, shape in STREAMS.items():
                yield name, stream, halved(shape) if part == "first half" else shape, options


def run(source: Images, shape: Shape, options: Options, seed: int) -> dict[str, Json]:
    """The learner with these settings over the first tasks of a stream."""
    settings = SlidingLookAhead.Settings(**{"memory": {"rows": shape.memory}, **options})
    learner = SlidingLookAhead(settings, Task((x_size(source),), max_labels=10, seed=seed))
    return measured(learner, samples(source, shape, seed), views(shape, x_size(source)), source)


def without_test_images(source: Images) -> Images:
    """The last training images take the place of the test images."""
    x, y = source.x_train, source.y_train
    return Images(source.name, x[:-HELD_BACK], y[:-HELD_BACK], x[-HELD_BACK:], y[-HELD_BACK:])


def halved(shape: Shape) -> Shape:
    """The first half of its tasks, with as much memory for each."""
    return shape._replace(tasks=shape.tasks // 2, memory=shape.memory // 2, of=shape.tasks)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tuning", "ablation"])
    parser.add_argument("--only", nargs="+", default=(), choices=[*CANDIDATES, *PARTS], metavar="NAME", help="of the settings")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--results", type=Path, help="the figures so far; the table lies beside them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
