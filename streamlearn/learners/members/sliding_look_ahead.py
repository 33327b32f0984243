"""The network of two speeds as a member: its fast weights answer for the present, its slow ones for all that was learned."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

import numpy as np

from streamlearn.errors import ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners.members.member import Rows, Size
from streamlearn.learners.sliding_look_ahead import RecallSettings, SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.records import Array, Batch, State
from streamlearn.settings import key, other

NAME, SLOW = "sliding-look-ahead", "slow"
WIDEST = 20
"""Columns up to which a row is taken at full length; a longer one is scaled to the length of so many."""

NO_ANSWER = -1e30


class LongSettings(RecallSettings):
    """A memory that tells of the past: more rows cost room, and no time."""

    rows: int = other(RecallSettings, "rows", 1000)


class Settings(SlidingLookAhead.Settings):
    """Look-ahead over a sliding window, at a third of the cost: among members that follow the present this is enough."""

    window: int = other(SlidingLookAhead.Settings, "window", 4)
    update_every: int = other(SlidingLookAhead.Settings, "update_every", 2)
    replay_rows: int = other(SlidingLookAhead.Settings, "replay_rows", 4)
    memory: LongSettings = key(LongSettings(), "the replay memory")
    recall: float = other(SlidingLookAhead.Settings, "recall", 0.3)
    inner_lr: float = other(SlidingLookAhead.Settings, "inner_lr", 0.15)
    inner_clip_norm: float | None = other(SlidingLookAhead.Settings, "inner_clip_norm", None)
    averaging: float = other(SlidingLookAhead.Settings, "averaging", 0.0)
    fast_share: float = other(SlidingLookAhead.Settings, "fast_share", 0.5)


class TwoSpeeds:
    """A `SlidingLookAhead` on rows as members see them. Two answers: `sliding-look-ahead` and `slow`."""

    def __init__(self, settings: SlidingLookAhead.Settings, size: Size, task: Task, *, scaled: bool) -> None:
        if task.model.name != "mlp" or task.model.module:
            raise ConfigError("learner.members has 'sliding-look-ahead', whose network is here an mlp: leave model.name out")
        self._scale = np.float32(min(1.0, math.sqrt(WIDEST / size.features)) if scaled else 1.0)
        fan_in = size.features if size.categories or size.gaps else None
        own = replace(
            task, shape=(size.inputs,), schema=None, fan_in=fan_in, inputs=InputSettings(), seed=size.seed, start=None
        )
        self._learner = SlidingLookAhead(settings, own)
        self.memory_capacity = self._learner.memory_capacity
        self.measures: Mapping[str, float] = {}  # of the rows that were learned last

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        fast, slow = (np.full((len(rows.z), rows.width), -np.inf) for _ in range(2))
        for is_learned, group in groupby(range(len(rows.z)), key=lambda n: bool(rows.learned[n])):
            numbers = list(group)
            part = slice(numbers[0], numbers[-1] + 1)
            answers = self._learned(rows, part) if is_learned else self._asked(rows.z[part])
            for out, logits in zip((fast, slow), answers, strict=True):
                out[part, : logits.shape[1]] = logits
        return {NAME: _log_softmax(fast), SLOW: _log_softmax(slow)}

    def _learned(self, rows: Rows, part: slice) -> tuple[Array, Array]:
        batch = replace(Batch.of(rows.z[part] * self._scale, rows.labels[part]), at=rows.numbers[part])
        report, slow = self._learner.learn_both(batch)
        self.measures = report.measures
        return report.logits, slow

    def hasten(self, factor: float) -> bool:
        """See `protocols.Hastened`."""
        return self._learner.hasten(factor)

    def _asked(self, z: Array) -> tuple[Array, Array]:
        x = (z * self._scale).astype(np.float32)
        return self._learner.predict(x, about="now"), self._learner.predict(x, about="ever")

    def grow(self, capacity: int) -> None:
        """See `Member`. The network grows with the rows that it learns."""

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        found: dict[str, Array] = {}
        for weights, name in (("fast", NAME), (self._learner.ever, SLOW)):
            layers = self._layers(weights, question.width)
            found |= {f"{name}.layers.{i}": layer.astype(np.float32) for i, layer in enumerate(layers)}
            found[f"{name}.scale"] = np.full(1, self._scale)
        return found

    def _layers(self, weights: str, width: int) -> list[Array]:
        """Each as [inputs + 1, outputs], the biases last; a label that the network refused so far never answers."""
        point = self._learner.point
        params = {name: p.detach().numpy() for name, p in point.weights[weights].items()}
        count = sum(name.startswith("body.layers.") and name.endswith("weight") for name in params)
        body = [(params[f"body.layers.{i}.weight"], params[f"body.layers.{i}.bias"]) for i in range(count)]
        layers = [np.concatenate([w, b[None]]) for w, b in (*body, (params["head.weight"].T, params["head.bias"]))]
        known = np.pad(point.active.lines[0].numpy(), (0, width))[:width]
        layers[-1] = np.pad(layers[-1], ((0, 0), (0, width)))[:, :width]
        layers[-1][-1, ~known] = NO_ANSWER
        return layers

    def state(self) -> State:
        """See `Member`."""
        return self._learner.state()

    def restore(self, state: State) -> None:
        """See `Member`."""
        self._learner.restore(state)

    def memory_labels(self) -> Mapping[int, int]:
        """See `Member`."""
        return self._learner.memory_labels()


def _log_softmax(logits: Array) -> Array:
    """Over labels that are not −∞; rows of nothing else stay as they are.

    Summed from left to right, so that labels to the right which say nothing change no bit.
    """
    highest = logits.max(1, keepdims=True, initial=-np.inf)
    shifted = logits - np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        answers: Array = shifted - np.log(np.exp(shifted).cumsum(1)[:, -1:])
    return np.where(np.isfinite(highest), answers, -np.inf)
