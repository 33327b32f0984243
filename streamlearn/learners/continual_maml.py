"""Continual-MAML: meta-learning while the context changes unannounced, without replay.

Slow weights φ are an initialisation; fast weights θ are φ after K steps on the chunk before. Each chunk is answered by θ. If
adapting to it would help much more than carrying on (ℓ(adapted) + γ ≤ ℓ(θ)), the context has changed: θ starts anew and φ
stays. Otherwise chunk and predecessor are one context, a meta-learning episode, and φ takes a step of Adam against
ℓ(adapt(φ; chunk before); chunk), the more surprising the chunk was the longer.

θ is always adapt(φ, chunk before), so that chunk stands in the checkpoint and no graph has to live on between chunks.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.adam import Moments, adam
from streamlearn.adapt.inner import look_ahead
from streamlearn.adapt.params import Params, Rows
from streamlearn.learners.chunkwise import Chunkwise, Point
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
from streamlearn.records import About, State
from streamlearn.settings import Section, key


class ContinualMAML(Chunkwise):
    """Fast and slow weights, switch detection, update modulation.

    Source  Caccia et al. 2020, Online Fast Adaptation and Knowledge Accumulation, Algorithm 2, without its prolonged
            adaptation. Theirs differentiates a graph kept from the chunk before; ours adapts to it again. Theirs adapts
            before φ moves, ours after. Their γ is in nats; ours is a share of ln(labels met), which carries over.
    """

    class Settings(Section):
        """Continual-MAML."""

        chunk: int = key(10, "rows of one update; it should hold several labels", unit="rows", ge=1)
        inner_steps: int = key(2, "steps that fast weights take from the slow ones", ge=0)
        inner_lr: float = key(0.1, "step size of the fast weights", gt=0)
        outer_lr: float = key(0.001, "step size of the slow weights, Adam", gt=0)
        switch_share: float | None = key(
            0.5, "gain by adapting, in ln(labels met), from which a chunk begins a new context; empty: never", gt=0
        )
        surprise: float | None = key(
            None, "the slow step is scaled by 1 − exp(−surprise · loss); empty: not scaled", unit="1/nats", gt=0
        )
        second_order: bool = key(True, "differentiate through the fast steps")
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        super().__init__(task, chunk=settings.chunk, max_contexts=settings.max_contexts)
        self._steps = 0  # of Adam
        self._previous: Columns | None = None
        self._before: tuple[int, Columns | None] = (0, None)
        self.point = self.point._replace(weights={**self.point.weights, "fast": self.point.weights["slow"]})

    def _fills(self) -> Mapping[str, float]:
        return {"mean": 0.0, "square": 0.0}

    def _served(self, about: About) -> Params:  # noqa: ARG002  the present context is all that fast weights know
        return self.point.weights["fast"]

    def _update(self, columns: Columns) -> Mapping[str, float]:
        self._before = (self._steps, self._previous)
        rows, slow = self._rows(columns), self.point.weights["slow"]
        fast = self._adapted(slow, None if self._previous is None else self._rows(self._previous))
        with torch.no_grad():
            carried = float(self._loss(fast, rows))
            gain = carried - float(self._loss(self._adapted(slow, rows), rows))
        switched = self._is_switch(gain) and self._previous is not None
        if not switched:
            self._move_slow(rows, carried)
        self._previous = columns
        slow = self.point.weights["slow"]
        self.point = self.point._replace(weights={**self.point.weights, "fast": self._adapted(slow, rows)})
        return {"context_switch": float(switched), "adaptation_gain": gain}

    def _is_switch(self, gain: float) -> bool:
        share = self.settings.switch_share
        labels = int(self.point.active.lines[0].sum())
        return share is not None and gain >= share * float(np.log(max(labels, 2)))

    def _adapted(self, slow: Params, rows: Rows | None) -> Params:
        """Fast weights, without a graph."""
        return slow if rows is None else self._walk(slow, rows, second_order=False)

    def _walk(self, slow: Params, rows: Rows, *, second_order: bool) -> Params:
        def step(fast: Params, rows: Rows) -> Params:
            grads = torch.func.grad(self._loss)(fast, rows)
            return grads if second_order else {name: g.detach() for name, g in grads.items()}

        rates = {name: torch.tensor(self.settings.inner_lr, dtype=p.dtype, device=p.device) for name, p in slow.items()}
        return [slow, *look_ahead(step, slow, rates, [rows] * self.settings.inner_steps).fast][-1]

    def _move_slow(self, rows: Rows, carried: float) -> None:
        weights, own = self.point.weights, self.settings
        previous = None if self._previous is None else self._rows(self._previous)
        weight = 1.0 if own.surprise is None else 1.0 - float(np.exp(-own.surprise * carried))

        def meta_loss(slow: Params) -> Tensor:
            fast = slow if previous is None else self._walk(slow, previous, second_order=own.second_order)
            return weight * self._loss(fast, rows)

        grads = torch.func.grad(meta_loss)(weights["slow"])
        moments = Moments(weights["mean"], weights["square"], self._steps)
        slow, moments = adam(weights["slow"], grads, moments, own.outer_lr)
        self._steps = moments.steps
        moved = {"slow": slow, "mean": moments.mean, "square": moments.square}
        self.point = self.point._replace(weights={**weights, **moved})

    def _take_back(self, before: Point) -> None:
        super()._take_back(before)
        self._steps, self._previous = self._before

    def state(self) -> State:
        """See `protocols.Learner`."""
        kept = self._previous or {}
        own = State({name: column.cpu().numpy().copy() for name, column in kept.items()}, {"adam_steps": self._steps})
        whole = super().state()
        nested = State.nest({"previous": own})
        return State({**whole.arrays, **nested.arrays}, {**whole.values, **nested.values})

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        super().restore(state)
        own = state.under("previous")
        device = {"x": self.task.device, "label": self.task.device}
        self._previous = {n: torch.tensor(a, device=device.get(n, "cpu")) for n, a in own.arrays.items()} or None
        self._steps = int(own.values["adam_steps"])
