"""Linear discriminant analysis, one row at a time: classes that differ in their means and share one covariance.

A question x is compared with every mean μ by the distance (x − μ)ᵀ Σ⁻¹ (x − μ): directions in which all classes spread count
for less. Σ = S/n + ε/(1 − ε) diag(S)/n, where S = Σᵢ (xᵢ − μ)(xᵢ − μ)ᵀ is the scatter of n rows about their classes' means:
features are taken as somewhat less related than few rows make them look. S is exact; of its inverse see `learn`.

Source  Fisher 1936; Hayes, Kanan 2020, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis. They weigh a
        row by all rows before it, where we do by those of its class; add a multiple of I, which asks for features of one scale;
        and invert at each question.
"""

from typing import NamedTuple

import numpy as np

from streamlearn.records import Array, State

GROWN = 1.25  # how much the scatter grows before the pull to its diagonal is adapted to it, and the inverse made anew
FLOOR = 1e-6  # of the mean of the diagonal, for features that never differ within a class


class Linear(NamedTuple):
    """Logits are x·w + b for each class."""

    weight: Array  # float64 [C, d]
    bias: Array  # float64 [C]


class Discriminant:
    """Means, counts and scatter, and what follows from them, in float64."""

    def __init__(self, size: int, *, shrinkage: float, grown: float = GROWN) -> None:
        self._shrinkage, self._grown = shrinkage, grown
        self.means: Array = np.zeros((0, size))
        self.counts: Array = np.zeros(0, np.int64)
        self._scatter: Array = np.zeros((size, size))
        self._inverse: Array = np.eye(size)
        self._products: Array = np.zeros((0, size))  # means times the inverse
        self._trace = 0.0  # of the scatter, when its inverse was last made anew

    def grow(self, rows: int) -> None:
        """Room for so many labels."""
        extra = max(0, rows - len(self.counts))
        self.means, self._products = (np.pad(each, ((0, extra), (0, 0))) for each in (self.means, self._products))
        self.counts = np.pad(self.counts, (0, extra))

    def learn(self, x: Array, label: int) -> None:
        """One row, float64 [d]. Costs d² + C d, and d³ now and then.

        Between two inversions the pull to the diagonal keeps its size, so that a row changes what is inverted by one product
        u uᵀ alone, and the inverse by Sherman and Morrison 1950.
        """
        away, known = x - self.means[label], int(self.counts[label])
        self.counts[label] += 1
        self.means[label] += away / (known + 1)
        u = away * np.sqrt(known / (known + 1))  # of a class's first row: nothing
        self._scatter += np.outer(u, u)
        trace = float(np.trace(self._scatter))
        if trace > self._grown * self._trace:
            self._invert(trace)
        elif known:
            v = self._inverse @ u
            share = 1.0 / (1.0 + u @ v)
            self._inverse -= share * np.outer(v, v)
            self._products -= np.outer(share * (self.means @ v), v)
        self._products[label] = self._inverse @ self.means[label]

    def _invert(self, trace: float) -> None:
        pull = self._shrinkage / (1 - self._shrinkage) * np.diag(self._scatter) + FLOOR * trace / len(self._scatter)
        self._inverse = np.linalg.inv(self._scatter + np.diag(pull))
        self._products, self._trace = self.means @ self._inverse, trace

    def linear(self) -> Linear:
        """Log-densities of the classes, up to what is the same for all. Without any scatter: those of the nearest mean."""
        met = self.counts > 0
        scale = float(self.counts.sum()) if self._trace else 1.0
        centre = self.means[met].mean(0) if met.any() else np.zeros(self.means.shape[1])
        weight = scale * (self._products - self._inverse @ centre)
        return Linear(weight, -0.5 * ((self.means + centre) * weight).sum(1))

    def state(self) -> State:
        """A copy of all, so that going on is exact."""
        arrays = {"means": self.means, "counts": self.counts, "scatter": self._scatter, "inverse": self._inverse}
        arrays |= {"products": self._products, "trace": np.array(self._trace)}
        return State({name: np.array(each) for name, each in arrays.items()})

    def restore(self, state: State) -> None:
        """Of the same size."""
        found = {name: np.array(each) for name, each in state.arrays.items()}
        self.means, self.counts, self._scatter = found["means"], found["counts"], found["scatter"]
        self._inverse, self._products, self._trace = found["inverse"], found["products"], float(found["trace"])
