"""How cautious should ADWIN be on the error, on the surprise and on the doubt of answers? Chosen here, scored elsewhere.

    python -m benchmarks.drift_choice

Learners run once over generated streams (`benchmarks.changing.TUNING`), abrupt, blurred and shuffled; every candidate then
watches what they answered. Beside that, false alarms on two million draws of five laws that never change. None of these
streams or seeds is in the tables of `benchmarks.drift`. Runs that are not yet in `docs/results/drift_choice.json` are made,
and `docs/results/drift_choice.md` is written anew.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import keep, known, machine
from benchmarks.changing import TUNING, Changing, blurred, still
from benchmarks.drift import make
from benchmarks.drift_report import judged, spread
from benchmarks.drift_signs import CALL, PATIENCE, doubts
from streamlearn.drift import Adwin
from streamlearn.metrics import score
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "drift_choice.json"
SEEDS = (10, 11, 12)
CANDIDATES = tuple((delta, clock) for clock in (32, 8) for delta in (0.002, 0.01, 0.05, 0.1))
DRAWS = 400_000
LAWS = ("0.01", "0.05", "0.2", "0.5", "beta")
WATCHED = ("error", "surprise", "doubt")
HEAD = """\
# How cautious ADWIN is on answers

Candidates for `delta` and `clock`, on streams made for this: three of river's generators (Agrawal, Sine, random RBF), four
laws of 2,000 rows one after another, seeds 10 to 12, abrupt and blurred over 1,000 rows. *Found*: change points with a
detection within the horizon, of all; *delay*: rows to it, mean ± standard deviation. *Not changing*: detections in the
same rows shuffled (18,000 rows of each learner) and, in the last column, for each 10,000 of two million draws that never
change: errors at four rates, and a law of surprises. Refractory time 1,000 rows in all of them.

Chosen: the largest `delta` and the smallest `clock` without any false alarm: 0.01 and 8, where river has 0.002 and 32.
"""


def main() -> None:
    """Make the runs that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    results = parser.parse_args().results
    torch.set_num_threads(1)
    for name, data in _streams():
        for learner in ("pool", "la-maml"):
            if f"{learner}/{name}" not in known(results):
                keep(results, f"{learner}/{name}", run(learner, data, int(name.split("/")[-1])))
                print(learner, name, flush=True)
    for law in LAWS:
        if f"never/{law}" not in known(results):
            keep(results, f"never/{law}", never(law))
    results.with_suffix(".md").write_text(table(known(results), machine()))


def _streams() -> Iterator[tuple[str, Changing]]:
    for stream, made in TUNING.items():
        for seed in SEEDS:
            yield f"abrupt/{stream}/{seed}", made(seed)
            yield f"blurred/{stream}/{seed}", blurred(made)(seed)
            yield f"still/{stream}/{seed}", still(made(seed), seed)


def run(name: str, data: Changing, seed: int) -> dict[str, Json]:
    """One learner over one stream, and what each candidate says of its answers."""
    learner = make(name, data.x.shape[1], seed)
    values: dict[str, list[float]] = {watched: [] for watched in WATCHED}
    for start in range(0, len(data.y), CALL):
        rows = slice(start, start + CALL)
        logits = learner.learn(Batch.of(data.x[rows], data.y[rows])).logits
        scored = score(data.y[rows], logits)
        for watched, found in zip(WATCHED, (scored.errors, scored.surprises, doubts(logits)), strict=True):
            values[watched] += found
    fired = {
        _named(watched, *candidate): _fired(told, *candidate) for watched, told in values.items() for candidate in CANDIDATES
    }
    return {"rows": len(data.y), "points": list(data.points), "horizon": data.horizon, "fired": fired}


def never(law: str) -> dict[str, Json]:
    """What each candidate says where nothing changes."""
    draw = np.random.default_rng([5, LAWS.index(law)])
    values: Array = draw.beta(0.2, 1.5, DRAWS) if law == "beta" else (draw.random(DRAWS) < float(law)).astype(float)
    told = values.tolist()
    return {"rows": DRAWS, "fired": {_named("any", *candidate): len(_fired(told, *candidate)) for candidate in CANDIDATES}}


def _fired(values: Sequence[float], delta: float, clock: int) -> list[int]:
    detector = Adwin(Adwin.Settings(delta=delta, clock=clock, warm_up=PATIENCE))
    return [row for row, value in enumerate(values) if detector.update(value)]


def _named(watched: str, delta: float, clock: int) -> str:
    return f"{watched}/{delta}/{clock}"


def table(runs: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    """Markdown."""
    columns = ("learner", "what", "delta", "clock", "abrupt", "delay", "blurred", "delay", "still", "never changing")
    lines = [columns, ("---",) * len(columns)]
    lines += [
        (f"`{learner}`", f"`{watched}`", str(delta), str(clock), *_figures(runs, learner, watched, delta, clock))
        for learner in ("pool", "la-maml")
        for watched in WATCHED
        for delta, clock in CANDIDATES
    ]
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{HEAD}\n{body}\n\nMade by `python -m benchmarks.drift_choice`; {told}.\n"


def _figures(runs: Mapping[str, Any], learner: str, watched: str, delta: float, clock: int) -> list[str]:
    cells = []
    for kind in ("abrupt", "blurred"):
        found = [
            judged(run["fired"][_named(watched, delta, clock)], run, first=PATIENCE)
            for name, run in runs.items()
            if name.startswith(f"{learner}/{kind}/")
        ]
        delays = np.concatenate([each.delays for each in found])
        false = sum(each.false for each in found)
        cells += [f"{int((~np.isnan(delays)).sum())} of {len(delays)}" + f", {false} false" * bool(false), spread(delays)]
    stills = [run for name, run in runs.items() if name.startswith(f"{learner}/still/")]
    drawn = [run for name, run in runs.items() if name.startswith("never/")]
    alarms = sum(run["fired"][_named("any", delta, clock)] for run in drawn)
    cells.append(str(sum(len(run["fired"][_named(watched, delta, clock)]) for run in stills)))
    return [*cells, f"{1e4 * alarms / sum(run['rows'] for run in drawn):.3f}"]


if __name__ == "__main__":
    main()
