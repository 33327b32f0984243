"""Look-ahead meta-learning on a stream: La-MAML, Sync and C-MAML, one loop with three outer updates.

Each chunk gets several glances. A glance takes one inner step per part of the chunk, in a fresh order, and scores fresh
replays together with the whole chunk after every step; the gradient of that score moves the parameters and, in La-MAML
and Sync, each weight's own inner step size.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal, cast

import torch

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient, meta_gradient
from streamlearn.adapt.params import Params, Rows, cosine, gradient
from streamlearn.errors import ConfigError
from streamlearn.kernels.look_ahead_room import Weights, rates_of
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings
from streamlearn.learners.compiled import CompiledLookAhead, layer_sizes, packed, unpacked
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
from streamlearn.models.mlp import MLP
from streamlearn.records import Array
from streamlearn.settings import Section, key


class LookAheadSettings(Section):
    """What the three have in common."""

    chunk: int = key(10, "rows of one update", unit="rows", ge=1)
    inner_chunks: int = key(10, "inner steps a chunk is cut into; a divisor of `chunk`", ge=1)
    glances: int = key(5, "updates per chunk", ge=1)
    replay_rows: int = key(10, "remembered rows in each meta batch", unit="rows", ge=0)
    memory: MemorySettings = key(MemorySettings(), "the replay memory")
    inner_lr: float = key(0.15, "inner step size that every weight starts from", gt=0)
    clip_norm: float = key(2.0, "bound on the global norm of each meta gradient", gt=0)
    inner_clip: float | None = key(
        None, "bound on each entry of an inner gradient; the paper's CIFAR form uses clip_norm", gt=0
    )
    floor_inner: bool = key(True, "step sizes below 0 count as 0 in the inner loop (off in the paper's CIFAR form)")
    second_order: bool = key(False, "differentiate through the inner steps")
    max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)
    kernel: Literal["auto", "numba", "torch"] = key("auto", "compiled or plain arithmetic; auto compiles where it can")
    allow_kernel_change: bool = key(False, "go on from a checkpoint of the other kernel; bits will differ from there on")


class LookAhead(Chunkwise):
    """The loop. `_outer` is where the three differ."""

    def __init__(self, settings: LookAheadSettings, task: Task) -> None:
        if settings.chunk % settings.inner_chunks:
            raise ConfigError(
                f"learner.inner_chunks is {settings.inner_chunks}: expected a divisor of learner.chunk = {settings.chunk}"
            )
        self.settings = settings
        super().__init__(task, chunk=settings.chunk, memory=settings.memory, max_contexts=settings.max_contexts)
        self._form = Form(settings.second_order, settings.floor_inner, settings.inner_clip)
        self._compiled = self._compile() if self._wants_compiling() else None
        self.kernel = "torch" if self._compiled is None else "numba"
        self.allow_kernel_change = settings.allow_kernel_change

    def _fills(self) -> Mapping[str, float]:
        return {"rates": self.settings.inner_lr}

    def _update(self, columns: Columns) -> Mapping[str, float]:
        return self._plain(columns) if self._compiled is None else self._fast(columns, self._compiled)

    def _plain(self, columns: Columns) -> Mapping[str, float]:
        fresh = self._rows(columns)
        measures = {}
        for glance in range(self.settings.glances):
            order = torch.randperm(self.chunk, generator=self.generator)
            replayed = self._replayed(self.settings.replay_rows)
            if glance == 0:
                measures = {"gradient_alignment": self._alignment(fresh, replayed)}
            support = [fresh.at(part) for part in order.chunk(self.settings.inner_chunks)]
            episode = Episode(support, fresh if replayed is None else Rows.joined([replayed, fresh]))
            slow, rates = self._step(self.point.weights["slow"], self.point.weights["rates"], episode)
            self.point = self.point._replace(weights={"slow": slow, "rates": rates})
            self._remember_early(columns)
        return measures

    def _fast(self, columns: Columns, compiled: CompiledLookAhead) -> Mapping[str, float]:
        slow, rates, active = self.point.weights["slow"], self.point.weights["rates"], self.point.active.lines[0]
        compiled.fit(layer_sizes(slow, active), self.task.dtype)
        weights = Weights(packed(slow, active), packed(rates, active))
        compiled.begin(self._inputs_of(columns), columns["label"].numpy(), active.numpy())
        measures = {}
        for glance in range(self.settings.glances):
            order = torch.randperm(self.chunk, generator=self.generator)
            kept = self._recalled(self.settings.replay_rows)
            query = compiled.query(self._inputs_of(kept), kept["label"].numpy(), order.numpy())
            if glance == 0:
                measures = {"gradient_alignment": compiled.alignment(weights, query)}
            compiled.update(weights, query)
            self._remember_early(columns)
        moved = {"slow": unpacked(weights.theta, slow, active), "rates": unpacked(weights.alpha, rates, active)}
        self.point = self.point._replace(weights=moved)
        return measures

    def _inputs_of(self, columns: Columns) -> Array:
        return self.point.inputs.apply(columns["x"].numpy())

    def _wants_compiling(self) -> bool:
        own, wish = self.settings, self.settings.kernel
        plain = own.second_order or own.inner_clip is not None or own.max_contexts > 0 or self.task.device != "cpu"
        can = self._constants() is not None and not plain and isinstance(self.network.body, MLP) and self.network.is_whole
        if wish == "numba" and not can:
            raise ConfigError(
                "learner.kernel is 'numba': expected a first-order learner without inner_clip and max_contexts, with the "
                "model 'mlp' on the CPU; leave the key out for the default, auto"
            )
        return can and wish != "torch"

    def _constants(self) -> tuple[float, float] | None:
        """`meta_lr` and `outer_lr` of the compiled form, each 0 where there is none; None where it has no such form."""
        return None

    def _compile(self) -> CompiledLookAhead:
        own, (meta_lr, outer_lr) = self.settings, self._constants() or (0.0, 0.0)
        rates = rates_of(meta_lr, outer_lr, own.clip_norm, floor=own.floor_inner, dtype=self.task.dtype)
        return CompiledLookAhead(rates, chunk=own.chunk, steps=own.inner_chunks, replay_rows=own.replay_rows)

    def _step(self, slow: Params, rates: Params, episode: Episode) -> tuple[Params, Params]:
        return self._outer(slow, rates, meta_gradient(self._loss, slow, rates, episode, self._form))

    @abstractmethod
    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        """Parameters and rates after one meta gradient."""

    def _alignment(self, fresh: Rows, replayed: Rows | None) -> float:
        if replayed is None:
            return float("nan")
        slow = self.point.weights["slow"]
        return cosine(gradient(self._loss, slow, fresh), gradient(self._loss, slow, replayed))

    def _standing_measures(self) -> dict[str, float]:
        return step_sizes(self.point.weights["rates"], self.point.active.width)


class LaMAML(LookAhead):
    """Each weight learns its own step size, by which it then moves: La-MAML."""

    class Settings(LookAheadSettings):
        """La-MAML with the settings of the paper's MNIST Rotations."""

        meta_lr: float = key(0.3, "how fast step sizes learn", gt=0)

    def _constants(self) -> tuple[float, float]:
        own = cast(LaMAML.Settings, self.settings)
        return own.meta_lr, 0.0

    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        own = cast(LaMAML.Settings, self.settings)
        return outer.la_maml(slow, rates, meta, meta_lr=own.meta_lr, clip_norm=own.clip_norm)


class Sync(LookAhead):
    """Step sizes learn, but act in the inner loop only; weights move by one scalar rate."""

    class Settings(LookAheadSettings):
        """Sync with the settings of the paper's MNIST Rotations."""

        meta_lr: float = key(0.1, "how fast step sizes learn", gt=0)
        outer_lr: float = key(0.3, "step size of the outer loop", gt=0)

    def _constants(self) -> tuple[float, float]:
        own = cast(Sync.Settings, self.settings)
        return own.meta_lr, own.outer_lr

    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        own = cast(Sync.Settings, self.settings)
        return outer.sync(slow, rates, meta, meta_lr=own.meta_lr, clip_norm=own.clip_norm, outer_lr=own.outer_lr)


class CMAML(LookAhead):
    """One scalar step size in each loop, none learned."""

    class Settings(LookAheadSettings):
        """C-MAML with the settings of the paper's MNIST Rotations."""

        inner_lr: float = key(0.1, "step size of the inner loop", gt=0)
        outer_lr: float = key(0.1, "step size of the outer loop", gt=0)

    def _constants(self) -> tuple[float, float]:
        own = cast(CMAML.Settings, self.settings)
        return 0.0, own.outer_lr

    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        own = cast(CMAML.Settings, self.settings)
        return outer.c_maml(slow, meta, clip_norm=own.clip_norm, outer_lr=own.outer_lr), rates


def step_sizes(rates: Params, width: int) -> dict[str, float]:
    """Measures of learned step sizes, `width` rows of the head among them."""
    used = torch.cat([(r[:width] if name.startswith("head.") else r).flatten() for name, r in rates.items()])
    return {
        "step_size_mean": float(used.clamp(min=0).mean()),
        "step_size_zero_ratio": float((used <= 0).to(used.dtype).mean()),
    }
