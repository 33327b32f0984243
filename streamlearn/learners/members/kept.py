"""Arrays that learning changes in place: copied out into a state, and copied back in place."""

from collections.abc import Mapping

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.records import Array, State


def copies(arrays: Mapping[str, Array]) -> State:
    """A state that holds copies of these."""
    return State({name: array.copy() for name, array in arrays.items()})


def put_back(arrays: Mapping[str, Array], state: State, *, part: str) -> None:
    """Write a state into arrays of the same shapes. Errors: CheckpointError, before anything is written."""
    for name, array in arrays.items():
        kept = state.arrays.get(name)
        if kept is None or kept.shape != array.shape or kept.dtype != array.dtype:
            found = "nothing" if kept is None else f"{kept.dtype} {kept.shape}"
            raise CheckpointError(
                f"checkpoint holds {found} for {part} '{name}': expected {array.dtype} {array.shape}; "
                "keep the configured learner and inputs, or start from an empty state"
            )
    for name, array in arrays.items():
        array[...] = state.arrays[name]


def wider(array: Array, capacity: int) -> Array:
    """The same with `capacity` entries on the last axis, new ones zero."""
    extra = capacity - array.shape[-1]
    return np.ascontiguousarray(np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, extra)])) if extra > 0 else array
