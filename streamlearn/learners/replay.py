"""Experience replay: ER, its ablation with learned step sizes (La-ER), and MER, which adds Reptile's pull."""

from collections.abc import Mapping

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient, meta_gradient
from streamlearn.adapt.params import Params, Rows, clipped, cosine, gradient, moved
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings
from streamlearn.learners.look_ahead import LookAhead, LookAheadSettings
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
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

    def _step(self, slow: Params, rates: Params, episode: Episode) -> tuple[Params, Params]:
        meta = meta_gradient(self._loss, slow, rates, episode, self._form)
        return self._outer(slow, rates, MetaGradient(gradient(self._loss, slow, episode.query), meta.inner_lr))

    def _outer(self, slow: Params, rates: Params, meta: MetaGradient) -> tuple[Params, Params]:
        own = self.settings
        return outer.la_maml(slow, rates, meta, meta_lr=own.meta_lr, clip_norm=own.clip_norm)


class MER(Chunkwise):
    """Each sample is learned in several passes of single-row steps over itself and replays, drawn back after each.

    Source  Riemer et al. 2019, Algorithm 1: `within` is their β, `across` their γ. The new row comes first in each pass.
    """

    class Settings(Section):
        """MER with the settings of its authors."""

        replay_rows: int = key(25, "remembered rows in each pass", unit="rows", ge=0)
        passes: int = key(10, "passes per sample", ge=1)
        memory: MemorySettings = key(MemorySettings(), "the replay memory")
        learning_rate: float = key(0.1, "step size", gt=0)
        within: float = key(0.1, "share of a pass that is kept", gt=0, le=1)
        across: float = key(1.0, "share of a sample's passes that is kept", gt=0, le=1)
        clip_norm: float = key(10.0, "bound on the global norm of each gradient", gt=0)
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        super().__init__(task, chunk=1, memory=settings.memory, max_contexts=settings.max_contexts)

    def _update(self, columns: Columns) -> Mapping[str, float]:
        fresh, start = self._rows(columns), self.point.weights["slow"]
        slow = start
        for _ in range(self.settings.passes):
            replayed = self._replayed(self.settings.replay_rows)
            after = self._walk(slow, fresh if replayed is None else Rows.joined([fresh, replayed]))
            slow = towards(slow, after, self.settings.within)
        self.point = self.point._replace(weights={"slow": towards(start, slow, self.settings.across)})
        return {}

    def _walk(self, slow: Params, rows: Rows) -> Params:
        for row in range(len(rows.y)):
            grads = clipped(gradient(self._loss, slow, rows.at(slice(row, row + 1))), self.settings.clip_norm)
            slow = moved(slow, grads, self.settings.learning_rate)
        return slow


def towards(start: Params, end: Params, share: float) -> Params:
    """The point at this share of the way: Reptile's step."""
    return {name: p + (end[name] - p) * share for name, p in start.items()}
