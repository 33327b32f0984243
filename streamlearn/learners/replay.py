"""Experience replay: ER, its ablation with learned step sizes (La-ER), and MER, which adds Reptile's pull."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient
from streamlearn.adapt.params import Loss, Params, Rows, clipped, cosine, gradient, moved
from streamlearn.adapt.recursion import meta_gradient
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings
from streamlearn.learners.compiled import is_compiled
from streamlearn.learners.look_ahead import LookAhead, LookAheadSettings
from streamlearn.learners.replay_compiled import CompiledPasses, Labelled
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
from streamlearn.models.mlp import MLP
from streamlearn.settings import Section, key


class ER(Chunkwise):
    """One gradient step on the mean loss of fresh and replayed rows.

    Source  Riemer et al. 2019, Algorithm 4, with batches; Chaudhry et al. 2019.
    """

    class Settings(Section):
        """Experience replay."""

        chunk: int = key(10, "rows of one update", unit="rows", ge=1)
        glances: int = key(1, "updates per chunk", ge=1)
        replay_rows: int = key(10, "remembered rows in each update", unit="rows", ge=0)
        memory: MemorySettings = key(MemorySettings(), "the replay memory")
        learning_rate: float = key(0.1, "step size", gt=0)
        clip_norm: float = key(2.0, "bound on the global norm of the gradient", gt=0)
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        super().__init__(task, chunk=settings.chunk, memory=settings.memory, max_contexts=settings.max_contexts)

    def _update(self, columns: Columns) -> Mapping[str, float]:
        fresh, alignments = self._rows(columns), []
        for _ in range(self.settings.glances):
            slow = self.point.weights["slow"]
            grads, alignment = self._gradient(slow, fresh, self._replayed(self.settings.replay_rows))
            slow = moved(slow, clipped(grads, self.settings.clip_norm), self.settings.learning_rate)
            self.point = self.point._replace(weights={"slow": slow})
            alignments.append(alignment)
            self._remember_early(columns)
        return {"gradient_alignment": alignments[-1]}

    def _gradient(self, slow: Params, fresh: Rows, replayed: Rows | None) -> tuple[Params, float]:
        """∇ of the mean loss over all rows, made of its two parts so that their angle comes with it."""
        new = gradient(self._loss, slow, fresh)
        if replayed is None:
            return new, float("nan")
        old, share = gradient(self._loss, slow, replayed), len(replayed.y) / (len(replayed.y) + len(fresh.y))
        return {name: share * g + (1.0 - share) * new[name] for name, g in old.items()}, cosine(new, old)


class LaER(LookAhead):
    """Step sizes learn as in La-MAML, from the score after the last inner step; weights move by the plain ER gradient.

    Source  Gupta, Yadav, Paull 2020, the ablation La-ER.
    """

    moves_by_rates = True

    class Settings(LookAheadSettings):
        """La-ER with the settings of the paper's CIFAR-100."""

        inner_chunks: int = key(5, "inner steps a chunk is cut into; a divisor of `chunk`", ge=1)
        glances: int = key(1, "updates per chunk", ge=1)
        inner_lr: float = key(0.1, "step size that every weight starts from", gt=0)
        inner_clip: float | None = key(2.0, "bound on each entry of an inner gradient", gt=0)
        floor_inner: bool = key(False, "step sizes below 0 count as 0 in the inner loop")
        meta_lr: float = key(0.1, "how fast step sizes learn", gt=0)

    settings: Settings

    def __init__(self, settings: Settings, task: Task) -> None:
        super().__init__(settings, task)
        self._form = Form(settings.second_order, settings.floor_inner, settings.inner_clip, last_only=True)

    def _step(self, loss: Loss, slow: Params, rates: Params, episode: Episode) -> tuple[Params, Params]:
        meta = meta_gradient(loss, slow, rates, episode, self._form)
        return self._outer(slow, rates, MetaGradient(gradient(episode.score or loss, slow, episode.query), meta.inner_lr))

    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        own = self.settings
        return outer.la_maml(slow, rates, meta, meta_lr=own.meta_lr, clip_norm=own.clip_norm)


class MER(Chunkwise):
    """Each sample is learned in several passes of single-row steps over itself and replays, drawn back after each.

    Source  Riemer et al. 2019, Algorithm 1: `within` is their β, `across` their γ, `passes` their s. The new row comes first
            in each pass. They do not bound gradients.
    """

    class Settings(Section):
        """MER with the settings that the La-MAML paper's authors gave it on CIFAR-100."""

        replay_rows: int = key(25, "remembered rows in each pass", unit="rows", ge=0)
        passes: int = key(10, "passes per sample", ge=1)
        memory: MemorySettings = key(MemorySettings(), "the replay memory")
        learning_rate: float = key(0.1, "step size", gt=0)
        within: float = key(0.1, "share of a pass that is kept", gt=0, le=1)
        across: float = key(1.0, "share of a sample's passes that is kept", gt=0, le=1)
        clip_norm: float | None = key(10.0, "bound on the global norm of each gradient; empty: none", gt=0)
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)
        kernel: Literal["auto", "numba", "torch"] = key("auto", "compiled or plain arithmetic; auto compiles where it can")
        allow_kernel_change: bool = key(False, "go on from a checkpoint of the other kernel; bits will differ from there on")

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        super().__init__(task, chunk=1, memory=settings.memory, max_contexts=settings.max_contexts)
        self._compiled = self._compile() if self._wants_compiling() else None
        self.kernel = "torch" if self._compiled is None else "numba"
        self.allow_kernel_change = settings.allow_kernel_change

    def _update(self, columns: Columns) -> Mapping[str, float]:
        start = self.point.weights["slow"]
        end = self._plain(start, columns) if self._compiled is None else self._fast(start, columns, self._compiled)
        slow = end if self.settings.across == 1.0 else towards(start, end, self.settings.across)
        self.point = self.point._replace(weights={"slow": slow})
        return {}

    def _plain(self, slow: Params, columns: Columns) -> Params:
        fresh = self._rows(columns)
        for _ in range(self.settings.passes):
            replayed = self._replayed(self.settings.replay_rows)
            after = self._walk(slow, fresh if replayed is None else Rows.joined([fresh, replayed]))
            slow = towards(slow, after, self.settings.within)
        return slow

    def _walk(self, slow: Params, rows: Rows) -> Params:
        bound = self.settings.clip_norm
        for row in range(len(rows.y)):
            grads = gradient(self._loss, slow, rows.at(slice(row, row + 1)))
            slow = moved(slow, grads if bound is None else clipped(grads, bound), self.settings.learning_rate)
        return slow

    def _fast(self, slow: Params, columns: Columns, compiled: CompiledPasses) -> Params:
        own, memory = self.settings, self._reservoir
        with_replacement = own.memory.with_replacement
        slots = [memory.draw(own.replay_rows, with_replacement=with_replacement) for _ in range(own.passes)]
        kept = memory.take(torch.cat(slots), ("x", "label"))
        fresh, replayed = (Labelled(self._inputs_of(each), each["label"].numpy()) for each in (columns, kept))
        return compiled.run(slow, self.point.active.lines[0], fresh, replayed)

    def _wants_compiling(self) -> bool:
        plain = self.settings.max_contexts > 0 or self.task.device != "cpu"
        can = not plain and isinstance(self.network.body, MLP) and self.network.is_whole
        return is_compiled(self.settings.kernel, can=can, expected="a learner without max_contexts, with the model 'mlp'")

    def _compile(self) -> CompiledPasses:
        own = self.settings
        bound = math.inf if own.clip_norm is None else own.clip_norm
        rates = np.array([own.learning_rate, own.within, bound], self.task.dtype)
        return CompiledPasses(passes=own.passes, replay_rows=own.replay_rows, rates=rates)


def towards(start: Params, end: Params, share: float) -> Params:
    """The point at this share of the way: Reptile's step."""
    return {name: p + (end[name] - p) * share for name, p in start.items()}
