"""How kernels are compiled: one thread, no reassociation (`fastmath` off), no lock held while they run.

A compiled function is kept on disk by its own file's time alone: what it calls should stand in the same file, or a change
there goes unnoticed until the cache (`__pycache__/*.nbi`) is removed.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiled on first use, and kept on disk where the installation or the user's cache can be written."""
    try:
        return cast(F, numba.njit(function, cache=True, nogil=True, error_model="numpy"))
    except RuntimeError:  # numba found no place for its cache
        return cast(F, numba.njit(function, nogil=True, error_model="numpy"))
