"""How kernels are compiled: one thread, no reassociation (`fastmath` off), no lock held while they run.

Machine code is kept on disk in a folder named by the sources of all kernels. numba itself looks at the time of a function's own
file only, so after a change to what a kernel calls it would go on running the old one. What lies there is trusted like the
`.pyc` files beside it: it is written by the user who runs the program, and read by nobody who could not change the program.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
HERE = Path(__file__).parent


def digest_of(folder: Path) -> str:
    """Changes with every change of a source file in `folder`."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        sha.update(f"{path.name}:{len(content)};".encode() + content)
    return sha.hexdigest()[:16]


def cache_folder(package: Path = HERE) -> Path:
    """Where `NUMBA_CACHE_DIR` says, else beside the package, else in the user's cache; its name is that of the sources."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        base = Path(given)
    elif os.access(package, os.W_OK):
        base = package / "__pycache__"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "streamlearn"
    return base / f"kernels-{digest_of(package)}"


numba.config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]  # it fills itself at run time


def compiled(function: F) -> F:
    """Compiled on first use, and kept on disk where that is possible."""
    try:
        return cast(F, numba.njit(function, cache=True, nogil=True, error_model="numpy"))
    except RuntimeError:  # numba found no place for its cache
        return cast(F, numba.njit(function, nogil=True, error_model="numpy"))


def summing(function: F) -> F:
    """Compiled with leave to add in another order than written, the same in each run: a sum in one chain is slow."""
    return cast(F, numba.njit(function, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}))
