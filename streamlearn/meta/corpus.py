"""A labelled corpus, its classes split into those that are trained on and those that are held out, and episodes out of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from streamlearn.adapt.unrolled import Lessons
from streamlearn.errors import ConfigError
from streamlearn.inputs import Inputs
from streamlearn.meta import views as looks
from streamlearn.meta.settings import CorpusSettings, ViewSettings
from streamlearn.models.classifier import mixed_seed
from streamlearn.records import Array

PLAIN = ViewSettings()


@dataclass(frozen=True)
class Corpus:
    """Rows by class. `train` and `held_out` are lists of classes, each the rows of one label."""

    x: Array  # [n, *shape], as in the file
    train: tuple[Array, ...]
    held_out: tuple[Array, ...]
    fingerprint: str  # of which labels were held out
    views: ViewSettings = PLAIN  # of rows that are trained on, whenever they are drawn

    @classmethod
    def load(cls, settings: CorpusSettings, *, shape: tuple[int, ...], seed: int) -> "Corpus":
        """Errors: ConfigError when the file does not hold labelled samples of this shape."""
        try:
            with np.load(settings.path, allow_pickle=False) as file:
                x, y = file[settings.x], file[settings.y]
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(
                f"corpus.path {settings.path} cannot be read: {error}; expected an npz file that holds "
                f"'{settings.x}' and '{settings.y}' (corpus.x, corpus.y)"
            ) from error
        if x.shape[1:] != shape or y.shape != x.shape[:1]:
            raise ConfigError(
                f"corpus.path {settings.path} holds inputs {list(x.shape)} and labels {list(y.shape)}: expected [n, "
                f"{', '.join(map(str, shape))}] and [n]"
            )
        return cls.of(x, y, held_out=settings.held_out, seed=seed, views=settings.views)

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        *,
        held_out: float,
        seed: int,
        views: ViewSettings = PLAIN,
    ) -> "Corpus":
        """The classes of `y`, this share of them held out, chosen by the seed.

        Errors: ConfigError below four classes, or when the views are of images and `x` holds none.
        """
        looks.check(views, x.shape[1:])
        labels, rows = np.unique(y, return_inverse=True)
        if len(labels) < 4:
            raise ConfigError(f"corpus holds {len(labels)} classes: expected 4 or more, of which some can be held out")
        order = np.random.default_rng(mixed_seed(seed, 10)).permutation(len(labels))
        count = min(len(labels) - 2, max(2, round(held_out * len(labels))))
        by_class = np.split(np.argsort(rows, kind="stable"), np.cumsum(np.bincount(rows))[:-1])
        apart = sorted(order[:count].tolist())
        print_of = hashlib.sha256("\n".join(str(labels[c]) for c in apart).encode()).hexdigest()[:16]
        train = _classes(by_class, sorted(order[count:].tolist()))
        if views.quarter_turns:
            train = tuple(each + turns * len(x) for turns in range(4) for each in train)
            x = looks.quarter_turns(x)
        return cls(x, train, _classes(by_class, apart), print_of, views)


def _classes(by_class: Sequence[Array], chosen: list[int]) -> tuple[Array, ...]:
    return tuple(by_class[c] for c in chosen)


@dataclass(frozen=True)
class Episodes:
    """Draws stacked episodes. Which one is a function of the generator alone."""

    corpus: Corpus
    inputs: Inputs
    dtype: torch.dtype
    device: str

    def few_shot(
        self, random: np.random.Generator, count: int, *, ways: int, shots: int, queries: int, held_out: bool
    ) -> Lessons:
        """`ways` classes with fresh labels 0 … ways−1 in each episode; support and query share no row."""
        classes = self.corpus.held_out if held_out else self.corpus.train
        rows = np.empty((count, ways, shots + queries), np.int64)
        for episode in range(count):
            for way, c in enumerate(random.choice(len(classes), ways, replace=False)):
                rows[episode, way] = random.choice(classes[c], shots + queries, replace=False)
        labels = np.broadcast_to(np.arange(ways)[:, None], (ways, shots + queries))
        return self._lessons(
            rows[:, :, :shots],
            np.tile(labels[:, :shots], (count, 1, 1)),
            rows[:, :, shots:],
            np.tile(labels[:, shots:], (count, 1, 1)),
            None if held_out else random,
        )

    def trajectories(
        self, random: np.random.Generator, count: int, *, classes: int, shots: int, remember: int, others: int = 0
    ) -> tuple[Lessons, list[int]]:
        """Class after class, `shots` rows each; the query is those rows, or `others` further ones, and any `remember` rows.

        Labels are places among the classes that are trained on. Also returns the classes of the trajectories.
        """
        train = self.corpus.train
        support, query, labels, asked = [], [], [], []
        for _ in range(count):
            chosen = random.choice(len(train), classes, replace=False).tolist()
            drawn = {c: random.choice(train[c], shots + others, replace=False) for c in chosen}
            far = random.integers(0, len(train), remember).tolist()
            support.append(np.concatenate([drawn[c][:shots] for c in chosen]))
            labels.append(np.repeat(chosen, shots))
            again = [drawn[c][shots:] if others else drawn[c] for c in chosen]
            query.append(np.concatenate([*again, np.array([random.choice(train[c]) for c in far], np.int64)]))
            asked.append(np.concatenate([np.repeat(chosen, others or shots), np.array(far, np.int64)]))
        lessons = self._lessons(np.stack(support), np.stack(labels), np.stack(query), np.stack(asked), random)
        return lessons, sorted(set(np.stack(labels).flatten().tolist()))

    def batch(self, random: np.random.Generator, rows: int) -> Lessons:
        """One episode without a support: any rows of the classes that are trained on, labelled as in `trajectories`."""
        train = self.corpus.train
        every = np.concatenate(train)
        labels = np.repeat(np.arange(len(train)), [len(each) for each in train])
        chosen = random.integers(0, len(every), (1, rows))
        none = np.empty((1, 0), np.int64)
        return self._lessons(none, none, every[chosen], labels[chosen], random)

    def rows(self, rows: Array) -> torch.Tensor:
        """These rows of the corpus as the network sees them."""
        x = self.inputs.apply(self.corpus.x[rows.reshape(-1)].astype(np.float32))
        return torch.from_numpy(x).to(self.device, self.dtype).reshape(*rows.shape, *x.shape[1:])

    def _lessons(
        self, support: Array, support_y: Array, query: Array, query_y: Array, random: np.random.Generator | None
    ) -> Lessons:
        """`random` draws how each row is seen; None: as it is."""
        count = len(support)
        (sx, qx) = (self._seen(self.rows(part.reshape(count, -1)), random) for part in (support, query))
        (sy, qy) = (torch.from_numpy(np.ascontiguousarray(y.reshape(count, -1))).to(self.device) for y in (support_y, query_y))
        return Lessons(sx, sy, qx, qy)

    def _seen(self, rows: torch.Tensor, random: np.random.Generator | None) -> torch.Tensor:
        """`rows` [episodes, rows, *shape] under the corpus' views."""
        if random is None or not rows.numel():
            return rows
        return looks.seen(rows.flatten(0, 1), self.corpus.views, random).reshape(rows.shape)
