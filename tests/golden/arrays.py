"""The recorded arrays of this folder."""

from pathlib import Path

import numpy as np

from streamlearn.records import Array

Arrays = dict[str, Array]


def load(name: str) -> Arrays:
    """All arrays of `name.npz`."""
    with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)
