"""Tables of what `benchmarks.streams` and `benchmarks.streams_baselines` found: `docs/results/streams.md`."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.stream_data import STREAMS, TUNING
from streamlearn.records import Json

RESULTS = Path(__file__).parents[1] / "docs/results"
MIB = 1 << 20
METHODS = ("no-change", "logistic", "hat", "arf10", "srp10")


class Cell(NamedTuple):
    """One pass over a stream."""

    stream: str
    name: str
    rows: int
    found: Mapping[str, Json]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="pool")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    ours, theirs = (_cells(given.folder / f"{name}.json") for name in ("streams", "streams_baselines"))
    (given.folder / "streams.md").write_text("\n".join([*report(ours, theirs, given.name), ""]))
    return 0


def report(ours: Sequence[Cell], theirs: Sequence[Cell], name: str) -> Iterator[str]:
    """The page, line by line."""
    yield "# Real streams\n"
    yield "Made by `python -m benchmarks.streams_report` from `streams.json` and `streams_baselines.json`, which hold commands,"
    yield "seeds and versions. Prequential accuracy in per cent: each row is answered before its label is learned. Baselines"
    yield "are river's with their defaults, seed 1. * marks the streams on which settings were chosen. After a first run"
    yield "(variant `first`, airlines2007 at -0.71) members and gate were changed: other streams are not untouched by results."
    yield "Seeds are in `streams.json`.\n"
    for title, lengths in (("Whole streams", _lengths(ours, name, whole=True)), (FIRST, _lengths(ours, name, whole=False))):
        if lengths:
            yield f"## {title}\n"
            yield from _table(ours, theirs, name, lengths)
    yield from _others(ours, name)


FIRST, FIRST_ROWS = "First 20,000 rows", 20_000


def _lengths(cells: Sequence[Cell], name: str, *, whole: bool) -> dict[str, int]:
    """Of each stream, the rows of the cells that belong into a table: of all of it, or of its beginning."""
    own = [cell for cell in cells if cell.name == name]
    return {cell.stream: cell.rows for cell in own if (cell.found["whole"] if whole else cell.rows <= FIRST_ROWS)}


def _table(ours: Sequence[Cell], theirs: Sequence[Cell], name: str, lengths: Mapping[str, int]) -> Iterator[str]:
    heads = ["stream", "rows", *METHODS, f"**{name}**", "κ", "margin", "without SRP", "rows/s", "× ARF", "state MiB"]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    margins = []
    for stream in (s for s in STREAMS if s in lengths):
        rows = lengths[stream]
        cells = [c.found for c in ours if (c.stream, c.name, c.rows) == (stream, name, rows)]
        others = {c.name: c.found for c in theirs if (c.stream, c.rows) == (stream, rows)}
        accuracies = {method: found["accuracy"] for method, found in others.items()}
        own = float(np.mean([c["accuracy"] for c in cells]))
        speed = float(np.median([c["samples_per_s"] for c in cells]))
        margins.append([_margin(own, accuracies), _margin(own, {m: a for m, a in accuracies.items() if m != "srp10"})])
        yield (
            "| "
            + " | ".join(
                [
                    stream + ("*" if stream in TUNING else ""),
                    f"{rows:,}",
                    *(f"{accuracies[m]:.1f}" if m in accuracies else "" for m in METHODS),
                    f"**{own:.2f}** {_spread([c['accuracy'] for c in cells])}",
                    f"{np.mean([c['kappa'] for c in cells]):.1f}",
                    *(f"{margin:+.2f}" for margin in margins[-1]),
                    f"{speed:,.0f}",
                    f"{speed / others['arf10']['samples_per_s']:.1f}" if "arf10" in others else "",
                    f"{cells[0]['state_bytes'] / MIB:.1f}",
                ]
            )
            + " |"
        )
    means, worst = np.nanmean(margins, axis=0), np.nanmin(margins, axis=0)
    yield f"\nMargin over the best baseline: mean {means[0]:+.2f}, worst {worst[0]:+.2f};"
    yield f"without SRP: mean {means[1]:+.2f}, worst {worst[1]:+.2f}.\n"


def _margin(own: float, accuracies: Mapping[str, float]) -> float:
    return own - max(accuracies.values()) if accuracies else float("nan")


def _spread(values: Sequence[float]) -> str:
    return f"± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""


def _others(ours: Sequence[Cell], name: str) -> Iterator[str]:
    """Every other name in the file, beside the main one at the same length and seeds."""
    names = sorted({cell.name for cell in ours} - {name})
    if not names:
        return
    yield "## Variants\n"
    yield "| stream | rows | " + " | ".join([name, *names]) + " |"
    yield "|" + "---|" * (len(names) + 3)
    for stream, rows in sorted({(c.stream, c.rows) for c in ours if c.name != name}, key=lambda s: (STREAMS.index(s[0]), s[1])):
        found = {
            n: [c.found["accuracy"] for c in ours if (c.stream, c.rows, c.name) == (stream, rows, n)] for n in (name, *names)
        }
        yield f"| {stream} | {rows:,} | " + " | ".join(f"{np.mean(a):.2f}" if a else "" for a in found.values()) + " |"


def _cells(path: Path) -> list[Cell]:
    cells = []
    for key, found in json.loads(path.read_text())["cells"].items():
        stream, name, rows, _ = key.split("/")
        cells.append(Cell(stream, name, int(rows), found))
    return cells


if __name__ == "__main__":
    sys.exit(main())
