"""MNIST Rotations through the whole program: real Kafka in, `streamlearn run` as its own process, answers over HTTP.

    python -m benchmarks.rotations            three seeds, a replay, and a run that is killed half-way
    python -m benchmarks.rotations --quick    small images, to see that it works: half a minute

Each task is produced to a topic; once its last record is in the served snapshot, test images of every task are asked through
the endpoint. A small process asks one row at a time at a steady pace while the model learns. Results go to `docs/results`.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.images import images
from benchmarks.plan import PUBLISHED, QUICK, Plan, Run
from benchmarks.topic import broker

RESULTS = Path(__file__).parents[1] / "docs/results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. 0 when every run ended well, and replay and the killed run ended with the bytes of the first."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    plan = replace(QUICK if given.quick else Plan(), proofs=given.proofs, learner={**PUBLISHED, **given.learner})
    plan = replace(plan, seeds=given.seeds or plan.seeds)
    source = images(small=plan.small)
    with tempfile.TemporaryDirectory(prefix="streamlearn-") as folder, broker(Path(folder) / "kafka") as address:
        bench = Bench(plan, source, address, Path(folder))
        warm_s = bench.warm()
        runs, killed = _run(bench, plan)
    command = shlex.join(["python", "-m", "benchmarks.rotations", *arguments])
    figures = report.figures(plan, source, runs, killed) | report.circumstances(command) | {"warm_s": warm_s}
    report.write(figures, given.out, given.name)
    print(report.table(figures))
    return 0 if report.sound(figures) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three small tasks of small images")
    parser.add_argument("--seeds", type=_seeds, help="comma-separated (default 0,1,2)")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True, dest="proofs", help="replay and kill -9")
    parser.add_argument("--learner", type=json.loads, default={}, help="JSON of learner settings over the published ones")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)")
    parser.add_argument("--name", default="rotations", help="file name of the results, without suffix (default: %(default)s)")
    return parser


def _run(bench: Bench, plan: Plan) -> tuple[list[Run], Run | None]:
    first, *others = plan.seeds
    runs = [bench.run(first, replay=plan.proofs), *(bench.run(seed) for seed in others)]
    return runs, bench.run(first, kill=True) if plan.proofs else None


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
