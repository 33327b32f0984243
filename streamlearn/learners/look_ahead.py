"""Look-ahead meta-learning on a stream: La-MAML, Sync and C-MAML, one loop with three outer updates.

Each chunk gets several glances. A glance takes one inner step per part of the chunk, in a fresh order, and scores fresh
replays together with the whole chunk after every step; the gradient of that score moves the parameters and, in La-MAML
and Sync, each weight's own inner step size.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal, cast

import torch

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient
from streamlearn.adapt.params import Loss, Params, Rows, cosine, gradient
from streamlearn.adapt.recursion import meta_gradient
from streamlearn.errors import ConfigError
from streamlearn.inputs import Inputs
from streamlearn.kernels.look_ahead_room import Weights, rates_of
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings
from streamlearn.learners.compiled import is_compiled, layer_sizes, packed, unpacked
from streamlearn.learners.look_ahead_compiled import CompiledLookAhead
from streamlearn.learners.static import Drawn, Recipe, Report, StaticLookAhead
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
from streamlearn.models.mlp import MLP
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
    alignment_every: int = key(10, "chunks from one measurement of the gradient alignment to the next", unit="chunks", ge=1)
    max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)
    kernel: Literal["auto", "numba", "torch", "static"] = key(
        "auto", "compiled, plain, or in fixed shapes, which a GPU replays as one graph; auto: static on a GPU, else compiled"
    )
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
        self._static = self._fixed() if self._wants_fixing() else None
        self.kernel = "numba" if self._compiled else "static" if self._static else "torch"
        self.allow_kernel_change = settings.allow_kernel_change

    def _fills(self) -> Mapping[str, float]:
        return {"rates": self.settings.inner_lr}

    def _update(self, columns: Columns) -> Mapping[str, float]:
        if self._compiled is not None:
            return self._fast(columns, self._compiled)
        return self._plain(columns) if self._static is None else self._read(self._run(columns, self._static))

    def _plain(self, columns: Columns) -> Mapping[str, float]:
        fresh, due = self._rows(columns), self._is_due()
        measures = {}
        for glance in range(self.settings.glances):
            order = torch.randperm(self.chunk, generator=self.generator)
            replayed = self._replayed(self.settings.replay_rows)
            if glance == 0 and due:
                measures = {"gradient_alignment": self._alignment(fresh, replayed)}
            episode = Episode(self._parts(fresh.at(order)), fresh if replayed is None else Rows.joined([replayed, fresh]))
            slow, rates = self._step(self._loss, self.point.weights["slow"], self.point.weights["rates"], episode)
            self.point = self.point._replace(weights={"slow": slow, "rates": rates})
            self._remember_early(columns)
        return measures

    def _parts(self, shuffled: Rows) -> list[Rows]:
        """What the inner steps take, one after another."""
        rows = self.chunk // self.settings.inner_chunks
        return [shuffled.at(slice(start, start + rows)) for start in range(0, self.chunk, rows)]

    def _fast(self, columns: Columns, compiled: CompiledLookAhead) -> Mapping[str, float]:
        slow, rates, active = self.point.weights["slow"], self.point.weights["rates"], self.point.active.lines[0]
        compiled.fit(layer_sizes(slow, active), self.task.dtype)
        weights = Weights(packed(slow, active), packed(rates, active))
        compiled.begin(self._inputs_of(columns), columns["label"].numpy(), active.numpy())
        measures, due = {}, self._is_due()
        for glance in range(self.settings.glances):
            order = torch.randperm(self.chunk, generator=self.generator)
            kept = self._recalled(self.settings.replay_rows)
            query = compiled.query(self._inputs_of(kept), kept["label"].numpy(), order.numpy())
            if glance == 0 and due:
                measures = {"gradient_alignment": compiled.alignment(weights, query)}
            compiled.update(weights, query)
            self._remember_early(columns)
        moved = {"slow": unpacked(weights.theta, slow, active), "rates": unpacked(weights.alpha, rates, active)}
        self.point = self.point._replace(weights=moved)
        return measures

    def _run(self, columns: Columns, static: StaticLookAhead) -> Report:
        """All glances at a chunk, without waiting for the device."""
        point, memory, due = self.point, self._reservoir, self._is_due()
        static.begin(point.weights, columns, point.active.lines, cast(Inputs, point.inputs), memory.columns)
        own = self.settings
        for glance in range(own.glances):
            order = torch.randperm(self.chunk, generator=self.generator)
            slots = memory.draw(own.replay_rows, with_replacement=own.memory.with_replacement)
            contexts = torch.cat([memory.columns["context"][slots], columns["context"]]) if own.max_contexts else slots[:0]
            static.update(Drawn(order, slots, point.active.line_of(contexts.tolist())), measured=due and glance == 0)
            self._remember_early(columns)
        return static.settled()

    def _read(self, report: Report) -> Mapping[str, float]:
        """The one look at the device. What is not finite is told, so that all that belongs to it is taken back."""
        sound, moved, alignment = report.read.tolist()
        self._is_sound = bool(sound)
        self.point = self.point._replace(weights={"slow": report.slow, "rates": report.rates})
        return {"update_norm": moved} | ({"gradient_alignment": alignment} if report.is_aligned else {})

    def _holds_numbers(self) -> bool:
        return super()._holds_numbers() if self._static is None else self._is_sound

    def _wants_compiling(self) -> bool:
        own = self.settings
        plain = own.second_order or own.inner_clip is not None or own.max_contexts > 0 or self.task.device != "cpu"
        can = self._constants() is not None and not plain and isinstance(self.network.body, MLP) and self.network.is_whole
        expected = "a first-order learner without inner_clip and max_contexts, with the model 'mlp'"
        return is_compiled(own.kernel, can=can, expected=expected)

    def _wants_fixing(self) -> bool:
        wish, can = self.settings.kernel, isinstance(self.point.inputs, Inputs)
        if wish == "static" and not can:
            raise ConfigError("learner.kernel is 'static': expected inputs of a shape; leave the key out for the default, auto")
        return can and (wish == "static" or (wish == "auto" and torch.device(self.task.device).type == "cuda"))

    def _fixed(self) -> StaticLookAhead:
        own = self.settings
        sizes = {"chunk": own.chunk, "inner_chunks": own.inner_chunks, "replay_rows": own.replay_rows}
        return StaticLookAhead(Recipe(self._step, self.network.logits, **sizes, max_contexts=own.max_contexts))

    def _constants(self) -> tuple[float, float] | None:
        """`meta_lr` and `outer_lr` of the compiled form, each 0 where there is none; None where it has no such form."""
        return None

    def _compile(self) -> CompiledLookAhead:
        own, (meta_lr, outer_lr) = self.settings, self._constants() or (0.0, 0.0)
        rates = rates_of(meta_lr, outer_lr, own.clip_norm, floor=own.floor_inner, dtype=self.task.dtype)
        return CompiledLookAhead(rates, chunk=own.chunk, steps=own.inner_chunks, replay_rows=own.replay_rows)

    def _step(self, loss: Loss, slow: Params, rates: Params, episode: Episode) -> tuple[Params, Params]:
        return self._outer(slow, rates, meta_gradient(loss, slow, rates, episode, self._form))

    @abstractmethod
    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        """Parameters and rates after one meta gradient."""

    def _alignment(self, fresh: Rows, replayed: Rows | None) -> float:
        if replayed is None:
            return float("nan")
        slow = self.point.weights["slow"]
        return cosine(gradient(self._loss, slow, fresh), gradient(self._loss, slow, replayed))

    def _is_due(self) -> bool:
        """Whether the gradient alignment of the chunk at hand is measured; the first has nothing to compare with."""
        return (self._chunks_seen() - 1) % self.settings.alignment_every == 0

    def _chunks_seen(self) -> int:
        return self._reservoir.seen // self.chunk

    def _standing_measures(self) -> dict[str, float]:
        since = self._chunks_seen() - 2  # the second chunk is the first that is measured
        age = float(since % self.settings.alignment_every) if since >= 0 else math.nan
        sizes = step_sizes(self.point.weights["rates"], self.point.active.width)
        return sizes | {"gradient_alignment_age_chunks": age}


class LaMAML(LookAhead):
    """Each weight learns its own step size, by which it then moves: La-MAML."""

    moves_by_rates = True

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
    used = [r[:width] if name.startswith("head.") else r for name, r in rates.items()]
    above = [r.clamp(min=0) for r in used]
    count = sum(r.numel() for r in used)
    return {
        "step_size_mean": float(torch.stack([r.sum() for r in above]).sum()) / count,
        "step_size_zero_ratio": 1.0 - float(torch.stack([r.sign().sum() for r in above]).sum()) / count,
    }
