"""What runs found, cell by cell, in a file that a stopped benchmark goes on from."""

import json
import platform
from pathlib import Path

import numba
import numpy as np
import torch

from streamlearn.records import Json


def known(path: Path) -> dict[str, Json]:
    """Cells by name; none where there is no file."""
    cells: dict[str, Json] = json.loads(path.read_text())["runs"] if path.is_file() else {}
    return cells


def keep(path: Path, name: str, cell: Json) -> None:
    """Put a cell beside the others. A crash leaves the file before or after it."""
    runs = dict(sorted((known(path) | {name: cell}).items()))
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
    beside.replace(path)


def machine() -> dict[str, str]:
    """What the runs were made on."""
    versions = {"torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    return {"processor": platform.processor() or platform.machine(), "python": platform.python_version(), **versions}
