"""Both forms of a learner that can be compiled, how far apart they are, and a stream that finds the difference."""

from typing import Any

import numpy as np

from streamlearn.learners.task import Task
from streamlearn.records import Batch


def pair(cls: Any, task: Task, **options: Any) -> tuple[Any, Any]:
    """The same learner with compiled and with plain arithmetic."""
    fast, plain = (cls(cls.Settings(kernel=kernel, **options), task) for kernel in ("numba", "torch"))
    assert (fast.kernel, plain.kernel) == ("numba", "torch")
    return fast, plain


def gap(one: Any, two: Any) -> float:
    """The largest difference of any weight, step size, remembered value or random state."""
    first, second = one.state().arrays, two.state().arrays
    assert set(first) == set(second)
    return max(float(np.abs(a.astype(float) - second[n].astype(float)).max(initial=0)) for n, a in first.items())


def stream(count: int, features: int, labels: int, seed: int) -> Batch:
    """Rows with many zeros, as images have, and labels that arrive one after another, not in order.

    No row is all zeros: its units would stand at biases, which are 0 but for rounding, and fire in one form alone.
    """
    random = np.random.default_rng(seed)
    y = np.minimum(random.integers(0, labels, count), np.arange(count) // 7) * 5 % 23
    x = np.maximum(random.normal(size=(count, features)) - 0.5, 0) + 0.5 * np.eye(23, features)[y]
    x[:, 0] += 1
    return Batch.of(x, y)
