"""How soon is a change noticed, and how often is one noticed that was none?

    python -m benchmarks.drift --seeds 0 1 2

Streams with known change points (`benchmarks.changing`), and the same rows shuffled. Each learner answers and learns
row by row, in calls of 20 rows; the detectors of the daemon, as they are configured by default, watch its answers and
the inputs. Beside them: signs of trouble (`benchmarks.drift_signs`), and the forgetting of the probe. `faster` repeats
runs with larger step sizes after each detection. Every run that is not yet in `docs/results/drift.json` is made, and put
there as it ends; `docs/results/drift.md` is written anew.
"""

import argparse
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import command_line, keep, known, report
from benchmarks.changing import SPREADS, STREAMS, Changing, still
from benchmarks.drift_report import table
from benchmarks.drift_signs import CALL, Signs
from streamlearn.drift import DETECTORS, Drift, Features, Inputs, Mark, OnAnswers, ReactionKeys, Reactions, Watched
from streamlearn.inputs import InputSettings
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.metrics import score
from streamlearn.probe import Probe, Settings
from streamlearn.protocols import Learner
from streamlearn.records import Batch, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "drift.json"
WIDE = 100  # inputs above which the pool, which takes a minute and more there, is left out
CHOSEN: Mapping[str, dict[str, Any]] = {"pool": {}, "sliding-look-ahead": {}, "la-maml": {"alignment_every": 2}}
ON_ANSWERS: tuple[OnAnswers, ...] = (*DETECTORS, "surprise")
WATCHED: Mapping[str, Sequence[Watched]] = {"means": ("mean",), "inputs": ("mean", "spread")}
FORGOTTEN = 0.05  # rise of the probe's forgetting above its least since it was last told
PROBE = Settings(share=0.1, era_records=1000, score_every=200)
HASTENED = ReactionKeys(on_error=("faster",), faster_factor=2.0, faster_records=500)
FASTER = ("arabic_digits", "interchanging_rbf", "turned MNIST")


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    for stream in asked.streams:
        for seed in asked.seeds:
            for name, cell in _cells(stream, seed, asked.learners):
                if name.startswith(tuple(asked.only.split(","))) and name not in known(asked.results):
                    keep(asked.results, name, cell())
                    print(name, flush=True)
    report(asked.results, table)


def _cells(stream: str, seed: int, learners: Sequence[str]) -> Iterator[tuple[str, Callable[[], dict[str, Json]]]]:
    """(name, how to make it), one after another."""
    whole = (SPREADS.get(stream) or STREAMS[stream])(seed)
    kinds = {"changes": whole} if stream.startswith("blurred") else {"changes": whole, "still": still(whole, seed)}
    for kind, data in kinds.items():
        for watched, parts in WATCHED.items():
            yield f"{kind}/{watched}/{stream}/{seed}", partial(inputs, data, parts)
        for name in learners if stream in STREAMS else ():
            if name != "pool" or data.x.shape[1] <= WIDE:
                yield f"{kind}/{name}/{stream}/{seed}", partial(run, name, data, seed)
    for name in learners:
        if stream in FASTER and name != "pool":
            yield f"faster/{name}/{stream}/{seed}", partial(run, name, whole, seed, HASTENED)


def inputs(data: Changing, watched: Sequence[Watched]) -> dict[str, Json]:
    """Detectors on the inputs alone."""
    fired: dict[str, list[int]] = {}
    for name in DETECTORS:
        watch = Inputs(
            Inputs.Settings(detectors=(name,), watch=tuple(watched)), Features((data.x.shape[1],)), recent_rows=200, most=1
        )
        fired[f"inputs/{name}"] = [i for i, *_ in watch.take(data.x)]
    return _told(data) | {"fired": fired}


class Told:
    """What a learner shows while it learns a stream."""

    def __init__(self, seed: int) -> None:
        self.marks: list[Mark] = []
        self.signs = Signs(seed)
        self.forgetting: list[tuple[int, float]] = []
        self.rows = self.wrong = 0

    def fired(self) -> dict[str, list[int]]:
        """Rows of the stream at which each detector fired."""
        fired: dict[str, list[int]] = {f"error/{name}": [] for name in ON_ANSWERS}
        for mark in self.marks:
            fired[f"error/{mark.detector}"].append(mark.row)
        fired |= self.signs.fired()
        return fired | ({"forgetting": _risen(self.forgetting)} if self.forgetting else {})


def run(name: str, data: Changing, seed: int, then: ReactionKeys | None = None) -> dict[str, Json]:
    """One learner over one stream; its errors, its signs and its forgetting are watched. The pool has no probe."""
    learner, told = make(name, data.x.shape[1], seed), Told(seed)
    probe = Probe(PROBE if name != "pool" else Settings(), seed=seed)
    watched = Drift.of(Drift.Settings(detectors=ON_ANSWERS))
    reactions = Reactions(then or ReactionKeys(), chunk=learner.chunk, hasten=getattr(learner, "hasten", None))
    waiting: list[int] = []
    for i in range(len(data.y)):
        if not probe.offer(data.x[i], int(data.y[i])):
            waiting.append(i)
        if probe.is_due:
            probe.score(lambda x, about: learner.predict(x, about=about))
            told.forgetting.append((i, probe.values()["forgetting/auto"]))
        if len(waiting) == CALL:
            reactions.take(_called(learner, watched, told, data, waiting), told.rows)
            waiting = []
    return _told(data) | {"fired": told.fired(), "accuracy": 1.0 - told.wrong / max(1, told.rows)}


def _called(learner: Learner, watched: Drift, told: Told, data: Changing, at: Sequence[int]) -> tuple[Mark, ...]:
    """One call of the learner; what ADWIN found on the error, by which steps are made faster."""
    batch = Batch.of(data.x[at], data.y[at])
    report = learner.learn(batch)
    scored = score(data.y[at], report.logits)
    found = watched.update(scored.errors, scored.labels, surprises=scored.surprises)
    told.marks += [mark._replace(row=at[mark.row - told.rows - 1]) for mark in found]
    told.rows += len(at)
    told.wrong += int(sum(scored.errors))
    told.signs.take(learner, batch, report, at)
    return tuple(mark for mark in found if mark.detector == "adwin")


def make(name: str, columns: int, seed: int) -> Learner:
    """A learner by name, fresh, with the paper's network where it has one; columns are standardised, pixels are not."""
    module, _, attribute = LEARNERS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    shown = InputSettings(kind="standardise") if columns <= WIDE else InputSettings()
    made: Learner = kind(kind.Settings(**CHOSEN[name]), Task((columns,), max_labels=50, seed=seed, inputs=shown))
    return made


def _told(data: Changing) -> dict[str, Json]:
    return {"rows": len(data.y), "points": list(data.points), "horizon": data.horizon}


def _risen(values: Sequence[tuple[int, float]]) -> list[int]:
    """Rows at which forgetting had risen by `FORGOTTEN` above its least since it last had."""
    least, found = math.inf, []
    for row, value in values:
        if math.isnan(value):
            continue
        least = min(least, value)
        if value >= least + FORGOTTEN:
            found.append(row)
            least = value
    return found


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    every = [*STREAMS, *SPREADS]
    parser.add_argument("--streams", nargs="+", choices=every, default=every)
    parser.add_argument("--learners", nargs="+", choices=CHOSEN, default=["pool", "la-maml"])
    parser.add_argument("--only", default="", help="only runs whose name begins so, as `changes/inputs`")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
