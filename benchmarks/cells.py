"""What runs found, cell by cell, in a file that a stopped benchmark goes on from; and what such benchmarks are asked alike."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numba
import numpy as np
import torch

from streamlearn.disk import replace_file
from streamlearn.records import Json


def command_line(about: str | None, results: Path, *, seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """`--seeds` and `--results` with their defaults; what a benchmark has of its own is added to it."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--results", type=Path, default=results, help="the figures so far; the table lies beside them")
    return parser


def fill(path: Path, name: str, run: Callable[[], Json]) -> None:
    """Make a cell unless it is there, keep it, and say so."""
    if name not in known(path):
        cell = run()
        keep(path, name, cell)
        print(name, json.dumps(cell), flush=True)


def report(path: Path, table: Callable[[Mapping[str, Json], Mapping[str, str]], str]) -> None:
    """The page of all cells, beside them."""
    path.with_suffix(".md").write_text(table(known(path), machine()))


def known(path: Path) -> dict[str, Json]:
    """Cells by name; none where there is no file."""
    cells: dict[str, Json] = json.loads(path.read_text())["runs"] if path.is_file() else {}
    return cells


def keep(path: Path, name: str, cell: Json) -> None:
    """Put a cell beside the others. A crash leaves the file before or after it."""
    runs = dict(sorted((known(path) | {name: cell}).items()))
    replace_file(path, (json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n").encode())


def machine() -> dict[str, str]:
    """What the runs were made on."""
    versions = {"torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    return {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), **versions}
