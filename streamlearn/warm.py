"""`python -m streamlearn.warm`: compile every learner's kernels now, at installation, rather than at the first record.

The machine code is kept beside the package, or in the user's cache where that cannot be written.
"""

import numpy as np

from streamlearn.config import configure
from streamlearn.configured_learner import learner
from streamlearn.learners import LEARNERS
from streamlearn.records import Batch

COLUMNS = 4


def warm() -> None:
    """One chunk through each learner, with default settings."""
    for name in LEARNERS:
        made = learner(configure({"source": {"type": "log"}, "input": {"shape": [COLUMNS]}, "learner": {"name": name}}))
        made.learn(Batch.of(np.ones((made.chunk, COLUMNS)), np.arange(made.chunk) % 2))


if __name__ == "__main__":
    warm()
