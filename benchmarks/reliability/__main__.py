"""`python -m benchmarks.reliability [GROUP …] [--only TEXT] [--quick] [--out FOLDER]`: run scenarios, write their rows.

`--most N` and `--on UPSTREAM` make the crash matrix smaller; its rows say so.
"""

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.reliability.bench import UPSTREAMS, Bench, NotHereError
from benchmarks.reliability.table import GROUPS, ROOT, SCENARIOS, played, record


def main(arguments: list[str] | None = None) -> int:
    """1 when something was not survived."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all when left out")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name holds this")
    parser.add_argument("--quick", action="store_true", help="few runs, and no row is written unless --out is given")
    parser.add_argument("--most", type=int, default=100, metavar="N", help="kills of a scenario on one upstream, at most")
    parser.add_argument("--on", nargs="+", default=UPSTREAMS, choices=UPSTREAMS, help="what is read; all when left out")
    parser.add_argument("--out", type=Path, help="folder for reliability.md and results/; docs/ when left out")
    told = parser.parse_args(arguments)
    if unknown := set(told.groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(sorted(unknown))}: expected {', '.join(GROUPS)}")
    groups = told.groups or list(GROUPS)
    for group in groups:
        import_module(GROUPS[group][1])
    docs = told.out or (None if told.quick else ROOT / "docs")
    few = [f"--most {told.most}"] if told.most != parser.get_default("most") else []
    few += [f"--on {' '.join(told.on)}"] if told.on != UPSTREAMS else []
    command = " ".join(["python -m benchmarks.reliability", *groups, *few] + (["--quick"] if told.quick else []))
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        bench = Bench(Path(folder), quick=told.quick, most=told.most, upstreams=told.on)
        try:
            return int(_lost(bench, groups, told.only, (command, docs)) > 0)
        finally:
            bench.close()


def _lost(bench: Bench, groups: list[str], only: str, written: tuple[str, Path | None]) -> int:
    """How many scenarios were not survived."""
    lost, (command, docs) = 0, written
    for i, one in enumerate(each for each in SCENARIOS if each.group in groups and only in each.name):
        bench.room(str(i))
        try:
            outcome = played(one, bench)
        except NotHereError as error:
            print(f"skipped   {one.group}: {one.name}: {error}", flush=True)
            continue
        lost += not outcome.survived
        word = "survived " if outcome.survived else "NOT      "
        print(f"{word} {one.group}: {one.name} ({outcome.runs} runs): {outcome.text}", flush=True)
        if docs is not None:
            record(one, outcome, command=command, docs=docs)
    return lost


if __name__ == "__main__":
    sys.exit(main())
