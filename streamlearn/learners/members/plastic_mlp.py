"""A multi-layer perceptron that follows the present: one step per row, on the row and a few of the last ones."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from streamlearn.kernels import plastic_mlp as kernel
from streamlearn.kernels.rows import Terms
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.learners.members.member import Rows, Size, answers_for
from streamlearn.models.classifier import head_row, mixed_seed
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NAME = "plastic-mlp"


class Settings(Section):
    """Plastic multi-layer perceptron."""

    hidden: tuple[int, ...] = key((100, 100), "sizes of the layers before the head", min_length=1)
    rate: float = key(0.1, "step size", gt=0)
    clip_norm: float = key(2.0, "bound on the global norm of the gradient", gt=0)
    replay_rows: int = key(4, "recent rows beside each new one", unit="rows", ge=0, le=255)
    recent_rows: int = key(200, "last rows that these are drawn from", unit="rows", ge=1)


class PlasticMLP:
    """No memory beyond the last rows, so nothing holds it to what is no longer true."""

    def __init__(self, settings: Settings, size: Size) -> None:
        self.settings = settings
        self.memory_capacity = settings.recent_rows
        self._seed, self._dtype = size.seed, size.dtype
        self._layers = _first_layers(settings, size)
        self._recent = kernel.Recent(
            np.zeros((settings.recent_rows, size.inputs), size.dtype),
            np.zeros(settings.recent_rows, np.int64),
            np.zeros(1, np.int64),
        )
        self._desk = self._new_desk()

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        out, own = answers_for(rows, self._dtype), self.settings
        pace = kernel.Pace(np.uint64(self._seed), own.rate, own.clip_norm)
        kernel.run(rows, pace, kernel.Held(self._layers, self._recent), self._desk, out)
        return {NAME: out}

    def grow(self, capacity: int) -> None:
        """See `Member`. A label's first weights are a function of seed and label."""
        *below, head = self._layers
        have = head.shape[1]
        if capacity > have:
            new = _head(self._seed, range(have, capacity), len(head) - 1, self._dtype)
            self._layers = (*below, np.ascontiguousarray(np.concatenate([head, new], axis=1)))
            self._desk = self._new_desk()

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        last = len(self._layers) - 1
        return {
            f"{NAME}.layers.{i}": (layer[:, : question.width] if i == last else layer).astype(np.float32)
            for i, layer in enumerate(self._layers)
        }

    def state(self) -> State:
        """See `Member`."""
        return copies(self._kept())

    def restore(self, state: State) -> None:
        """See `Member`."""
        put_back(self._kept(), state, part=NAME)

    def _kept(self) -> dict[str, Array]:
        return {f"layers.{i}": layer for i, layer in enumerate(self._layers)} | self._recent._asdict()

    def _new_desk(self) -> kernel.Desk:
        widths = np.array([layer.shape[1] for layer in self._layers])
        rows, widest, longest = self.settings.replay_rows + 1, int(widths.max()), max(len(layer) for layer in self._layers)
        most = max(rows, widest, longest)
        shapes = ((len(widths), rows, widest), (len(widths), rows, widest), (widest, longest), most)
        outputs, deltas, turned, factors = (np.zeros(shape, self._dtype) for shape in shapes)
        return kernel.Desk(widths, outputs, deltas, turned, Terms(np.zeros(most, np.int64), factors))

    def memory_labels(self) -> Mapping[int, int]:
        """See `Member`."""
        held = min(int(self._recent.met[0]), len(self._recent.labels))
        rows, counts = np.unique(self._recent.labels[:held], return_counts=True)
        return dict(zip(rows.tolist(), counts.tolist(), strict=True))


def _first_layers(settings: Settings, size: Size) -> tuple[Array, ...]:
    """Kaiming-normal weights, zero biases. Of a row's inputs, about `features` are of length 1."""
    random = np.random.default_rng(mixed_seed(size.seed, 0))
    layers = []
    for i, (inputs, outputs) in enumerate(pairwise((size.inputs, *settings.hidden))):
        weights = random.standard_normal((inputs, outputs)) * np.sqrt(2.0 / (inputs if i else size.features))
        layers.append(np.concatenate([weights, np.zeros((1, outputs))]).astype(size.dtype))
    return (*layers, _head(size.seed, range(size.capacity), settings.hidden[-1], size.dtype))


def _head(seed: int, rows: range, width: int, dtype: str) -> Array:
    """[width + 1, labels]."""
    weights = np.stack([head_row(seed, row, width).numpy() for row in rows], axis=1)
    return np.ascontiguousarray(np.concatenate([weights, np.zeros((1, len(rows)))]).astype(dtype))
