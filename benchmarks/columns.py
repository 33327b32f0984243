"""Streams with text in them: the default learner told which columns are categories, and the same rows as plain numbers.

    python -m benchmarks.columns                   airlines2007 and kdd99_first100k, first 20,000 rows, three seeds
    python -m benchmarks.columns --rows 1000000    all of them
    python -m benchmarks.columns --report          `docs/results/columns.md` from what is in the file

A cell (stream, variant, rows, seed) that is in the file already is not run again.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.scores import figure
from benchmarks.stream_data import AT_ONCE, FOLDER, Stream, stream
from benchmarks.streams import _kept, run, write
from streamlearn.learners.pool import Pool
from streamlearn.learners.task import Task
from streamlearn.records import Array, Json
from streamlearn.schema import Column, Schema, bucket

RESULTS = Path(__file__).parents[1] / "docs/results"
STREAMS = ("airlines2007", "kdd99_first100k")
VARIANTS = ("numbers", "columns")
BUCKETS = 4096  # the default of input.columns.NAME.buckets


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    kept = _kept(given.out)
    command = shlex.join(["python", "-m", "benchmarks.columns", *arguments])
    for name in () if given.report else STREAMS:
        data = stream(name, given.rows)
        schema, encoded = declared(data)
        for seed in given.seeds:
            for variant in VARIANTS:
                cell = f"{name}/{variant}/{len(data.y)}/{seed}"
                if cell not in kept["cells"]:
                    named = variant == "columns"
                    made = Pool(Pool.Settings(), Task((data.x.shape[1],), seed=seed, schema=schema if named else None))
                    found = run(made, data._replace(x=encoded) if named else data, AT_ONCE, seed=seed)
                    kept["cells"][cell] = {**found, "whole": data.whole, "command": command}
                    write(given.out, kept)
                    print(cell, found["accuracy"], found["samples_per_s"], flush=True)
    if given.report:
        (RESULTS / "columns.md").write_text("\n".join([*report(kept["cells"]), ""]))
    return 0


def declared(data: Stream) -> tuple[Schema, Array]:
    """The stream's columns, those with a list of texts being categories, and its rows as a decoder makes them."""
    with np.load(Path(os.environ[FOLDER]) / f"{data.name}.npz", allow_pickle=False) as held:
        names = [str(name) for name in held["feature_names"]]
        texts = {name: [str(text) for text in held[f"cat_{name}"]] for name in names if f"cat_{name}" in held}
    columns = [Column(name, "categorical", True, BUCKETS) if name in texts else Column(name) for name in names]
    x = data.x.copy()
    for j, name in enumerate(names):
        if name in texts:
            codes = np.array([bucket(text, BUCKETS) for text in texts[name]], np.float32)
            x[:, j] = codes[data.x[:, j].astype(np.int64)]
    return Schema(tuple(columns)), x


def report(cells: Mapping[str, Json]) -> Iterator[str]:
    """The page, line by line."""
    yield "# Named columns\n"
    yield "Made by `python -m benchmarks.columns --report` from `columns.json`, which holds commands, seeds and versions."
    yield "Prequential accuracy in per cent of the default learner (`pool`, all defaults), each row answered before its label"
    yield "is learned. *numbers*: every column a number, as in `streams.md`. *columns*: carrier, origin and destination of a"
    yield "flight, protocol, service and flag of a connection declared `categorical`, all others `numeric`, missing allowed."
    yield "Same rows, same seeds, nothing else changed, nothing chosen on these streams. Speeds are of a busy machine.\n"
    yield "| stream | rows | numbers | columns | difference | rows/s | rows/s with columns |"
    yield "|---|---|---|---|---|---|---|"
    lengths = sorted({(name, int(rows)) for name, _, rows, _ in (key.split("/") for key in cells)})
    for name, rows in lengths:
        both = [[c for key, c in cells.items() if key.startswith(f"{name}/{variant}/{rows}/")] for variant in VARIANTS]
        (plain, named), speeds = ([[c[part] for c in found] for found in both] for part in ("accuracy", "samples_per_s"))
        gap = np.mean(named) - np.mean(plain)
        rates = " | ".join(f"{np.median(speed):,.0f}" for speed in speeds)
        yield f"| {name} | {rows:,} | {_mean(plain)} | {_mean(named)} | {gap:+.2f} | {rates} |"


def _mean(values: Sequence[float]) -> str:
    return f"{figure(values, 2)} ({len(values)} seeds)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="of each stream")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--report", action="store_true", help="write the page, run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "columns.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
