"""Prequential metrics: how good the answers were that came before their labels. Owned by the learner's thread.

Each metric goes row by row in stream order, so how many rows come in one call changes no bit of it, nor does the number
of columns a call pads with -inf for labels not learned yet. Each is bounded by its window or by the label map's bound,
and honest before the first record: NaN.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NO_ANSWER = -1
"""The guess where there was none: before the first label, or from logits without a finite maximum."""


class Answers(NamedTuple):
    """Rows of (label, answer before the label), reduced to what metrics and detectors ask for."""

    labels: list[int]
    guesses: list[int]  # row of the most probable label, the lowest of equals; `NO_ANSWER` where there was none
    log_probabilities: list[float]  # of the label, in nats; -inf where it was not learned yet

    @property
    def errors(self) -> list[float]:
        """1.0 where the guess was wrong or missing, else 0.0: what a drift detector watches."""
        return [float(guess != label) for label, guess in zip(self.labels, self.guesses, strict=True)]

    @property
    def surprises(self) -> list[float]:
        """1 − the probability that the answer gave to the label, which is 0 where there was none."""
        return [max(0.0, -math.expm1(known)) for known in self.log_probabilities]


def score(labels: Array, logits: Array) -> Answers:
    """What the answers were worth.

    Shapes  `labels` int64 [n], `logits` [n, C] with C possibly 0 or not above a label.
    A row's figures depend on its finite logits alone: sums run left to right, where adding 0 for a -inf changes nothing.
    """
    n, width = logits.shape
    if not width:
        return Answers(labels.tolist(), [NO_ANSWER] * n, [-math.inf] * n)
    x, rows = np.ascontiguousarray(logits, np.float64), np.arange(n)
    guesses = x.argmax(1)
    top = x[rows, guesses]
    answered = np.isfinite(top)
    known = answered & (labels < width)
    with np.errstate(over="ignore", invalid="ignore"):  # rows without a finite maximum, which `known` leaves out
        shifted = x - np.where(answered, top, 0.0)[:, None]
        total = np.cumsum(np.exp(shifted), axis=1)[:, -1]
    own = shifted[rows, np.where(known, labels, 0)] - np.log(np.where(known, total, 1.0))
    return Answers(
        labels.tolist(),
        np.where(answered, guesses, NO_ANSWER).tolist(),
        np.where(known, own, -np.inf).tolist(),
    )


class AnswerMetric(ABC):
    """A `Metric` that reads `Answers`, so that several of them share one pass over the logits."""

    def update(self, labels: Array, logits: Array) -> None:
        """Take rows in stream order."""
        self.take(score(labels, logits))

    @abstractmethod
    def take(self, answers: Answers) -> None:
        """The same, already scored."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """The metric's figures by name."""

    @abstractmethod
    def state(self) -> State:
        """A copy of all that `restore` needs."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a saved state; `fade` and `window` are those of the configuration, not of the state."""


class FadingMean:
    """Mean in which a value of k rows ago weighs fade^k; half of the weight lies within ln 2 / (1 - fade) rows."""

    def __init__(self, fade: float) -> None:
        self.fade, self.total, self.weight = fade, 0.0, 0.0

    def take(self, values: Iterable[float]) -> None:
        """Take values in stream order."""
        fade, total, weight = self.fade, self.total, self.weight
        for value in values:
            total = fade * total + value
            weight = fade * weight + 1.0
        self.total, self.weight = total, weight

    @property
    def value(self) -> float:
        """The mean; NaN before the first value."""
        return self.total / self.weight if self.weight else math.nan

    def state(self) -> State:
        """The two sums."""
        return State(values={"total": self.total, "weight": self.weight})

    def restore(self, state: State) -> None:
        """Take over saved sums."""
        self.total, self.weight = float(state.values["total"]), float(state.values["weight"])


class FadingAccuracy(AnswerMetric):
    """Share of right answers, fading."""

    def __init__(self, fade: float = 0.999) -> None:
        self._mean = FadingMean(fade)

    def take(self, answers: Answers) -> None:
        self._mean.take([guess == label for label, guess in zip(answers.labels, answers.guesses, strict=True)])

    def values(self) -> dict[str, float]:
        return {"accuracy": self._mean.value}

    def state(self) -> State:
        return self._mean.state()

    def restore(self, state: State) -> None:
        self._mean.restore(state)


class WindowedAccuracy(AnswerMetric):
    """Share of right answers among the last `window` rows."""

    def __init__(self, window: int = 1000) -> None:
        self._hits: deque[bool] = deque(maxlen=window)

    def take(self, answers: Answers) -> None:
        self._hits.extend([guess == label for label, guess in zip(answers.labels, answers.guesses, strict=True)])

    def values(self) -> dict[str, float]:
        return {"windowed_accuracy": sum(self._hits) / len(self._hits) if self._hits else math.nan}

    def state(self) -> State:
        return State(arrays={"hits": np.array(self._hits, np.uint8)})

    def restore(self, state: State) -> None:
        self._hits = deque(state.arrays["hits"].astype(bool).tolist(), self._hits.maxlen)


class CohenKappa(AnswerMetric):
    """Agreement beyond chance among the last `window` rows; NaN where chance alone explains all of it.

    A window, not the whole stream, so that it follows what the stream has become. A missing answer is a class of its own.
    Source  Cohen 1960, A coefficient of agreement for nominal scales, equation 1.
    """

    def __init__(self, window: int = 1000) -> None:
        self.window = window
        self._clear()

    def _clear(self) -> None:
        self._pairs: deque[tuple[int, int]] = deque()
        self._labels: Counter[int] = Counter()
        self._guesses: Counter[int] = Counter()

    def take(self, answers: Answers) -> None:
        self._add(zip(answers.labels, answers.guesses, strict=True))

    def _add(self, pairs: Iterable[tuple[int, int]]) -> None:
        queue, labels, guesses = self._pairs, self._labels, self._guesses
        for pair in pairs:
            queue.append(pair)
            labels[pair[0]] += 1
            guesses[pair[1]] += 1
            if len(queue) > self.window:
                label, guess = queue.popleft()
                labels[label] -= 1
                guesses[guess] -= 1

    def values(self) -> dict[str, float]:
        n = len(self._pairs)
        agreed = n * sum(label == guess for label, guess in self._pairs)
        by_chance = sum(count * self._guesses[label] for label, count in self._labels.items())
        return {"kappa": (agreed - by_chance) / (n * n - by_chance) if n * n > by_chance else math.nan}

    def state(self) -> State:
        return State(arrays={"pairs": np.array(self._pairs, np.int64).reshape(-1, 2)})

    def restore(self, state: State) -> None:
        self._clear()
        self._add((int(label), int(guess)) for label, guess in state.arrays["pairs"])


class PerClassRecall(AnswerMetric):
    """Share of right answers per label, fading over the label's own rows; the `top` most frequent labels and the others.

    Values  `recall/ROW` for the most frequent label rows of the whole stream (the lower row of equals), `recall/other`
            for the rest together when there are more, and `balanced_accuracy`, the mean over all labels met.
    """

    def __init__(self, fade: float = 0.99, top: int = 20) -> None:
        self.fade, self.top = fade, top
        self._sums: dict[int, list[float]] = {}  # label row → fading hits, fading weight, rows

    def take(self, answers: Answers) -> None:
        fade, all_sums = self.fade, self._sums
        for label, guess in zip(answers.labels, answers.guesses, strict=True):
            sums = all_sums.get(label)
            if sums is None:
                sums = all_sums[label] = [0.0, 0.0, 0]
            sums[0] = fade * sums[0] + (guess == label)
            sums[1] = fade * sums[1] + 1.0
            sums[2] += 1

    def values(self) -> dict[str, float]:
        ordered = sorted(self._sums, key=lambda row: (-self._sums[row][2], row))
        recalls = {row: self._sums[row][0] / self._sums[row][1] for row in sorted(self._sums)}
        figures = {f"recall/{row}": recalls[row] for row in sorted(ordered[: self.top])}
        if rest := [self._sums[row] for row in sorted(ordered[self.top :])]:
            figures["recall/other"] = math.fsum(sums[0] for sums in rest) / math.fsum(sums[1] for sums in rest)
        figures["balanced_accuracy"] = math.fsum(recalls.values()) / len(recalls) if recalls else math.nan
        return figures

    def state(self) -> State:
        rows = sorted(self._sums)
        sums = np.array([self._sums[row][:2] for row in rows], np.float64).reshape(-1, 2)
        counts = np.array([self._sums[row][2] for row in rows], np.int64)
        return State(arrays={"rows": np.array(rows, np.int64), "sums": sums, "counts": counts})

    def restore(self, state: State) -> None:
        rows, sums, counts = (state.arrays[name].tolist() for name in ("rows", "sums", "counts"))
        self._sums = {row: [*pair, count] for row, pair, count in zip(rows, sums, counts, strict=True)}


class LogLoss(AnswerMetric):
    """Mean of -ln p(label), fading, in nats. `p` is never taken below `floor`, which is also what a label not learned
    yet counts as: one such row costs -ln floor (13.8 at the default), never infinity."""

    def __init__(self, fade: float = 0.999, floor: float = 1e-6) -> None:
        self._mean, self._least = FadingMean(fade), math.log(floor)

    def take(self, answers: Answers) -> None:
        least = self._least
        self._mean.take([-max(value, least) for value in answers.log_probabilities])

    def values(self) -> dict[str, float]:
        return {"log_loss": self._mean.value}

    def state(self) -> State:
        return self._mean.state()

    def restore(self, state: State) -> None:
        self._mean.restore(state)


class NoChange(AnswerMetric):
    """Fading accuracy of repeating the last label: what a stream in order of its labels gives away for nothing."""

    def __init__(self, fade: float = 0.999) -> None:
        self._mean, self._last = FadingMean(fade), NO_ANSWER

    def take(self, answers: Answers) -> None:
        self._mean.take([label == last for last, label in zip([self._last, *answers.labels], answers.labels, strict=False)])
        self._last = answers.labels[-1] if answers.labels else self._last

    def values(self) -> dict[str, float]:
        return {"no_change_accuracy": self._mean.value}

    def state(self) -> State:
        return State(values={**self._mean.state().values, "last": self._last})

    def restore(self, state: State) -> None:
        self._mean.restore(state)
        self._last = int(state.values["last"])


class Majority(AnswerMetric):
    """Fading accuracy of answering the most frequent label so far (the first to get there, of equals)."""

    def __init__(self, fade: float = 0.999) -> None:
        self._mean, self._best = FadingMean(fade), NO_ANSWER
        self._counts: Counter[int] = Counter()

    def take(self, answers: Answers) -> None:
        self._mean.take([self._hit(label) for label in answers.labels])

    def _hit(self, label: int) -> bool:
        hit = label == self._best
        self._counts[label] += 1
        if self._counts[label] > self._counts[self._best]:
            self._best = label
        return hit

    def values(self) -> dict[str, float]:
        return {"majority_accuracy": self._mean.value}

    def state(self) -> State:
        counts = np.array(sorted(self._counts.items()), np.int64).reshape(-1, 2)
        return State(arrays={"counts": counts}, values={**self._mean.state().values, "best": self._best})

    def restore(self, state: State) -> None:
        self._mean.restore(state)
        self._best = int(state.values["best"])
        self._counts = Counter({int(label): int(count) for label, count in state.arrays["counts"]})


METRICS: Mapping[str, type[AnswerMetric]] = {
    "accuracy": FadingAccuracy,
    "windowed_accuracy": WindowedAccuracy,
    "kappa": CohenKappa,
    "recall": PerClassRecall,
    "log_loss": LogLoss,
    "no_change": NoChange,
    "majority": Majority,
}


class Metrics:
    """All metrics of the loop, in the order of `METRICS`, over one pass of scoring."""

    class Settings(Section):
        fade: float = key(0.999, "weight of a row against the next one in fading accuracy and loss", gt=0, le=1)
        window: int = key(1000, "rows that windowed accuracy and Cohen's kappa look back on", unit="records", ge=1)
        class_fade: float = key(0.99, "the same as fade, for recall, counted in rows of the class itself", gt=0, le=1)
        top_labels: int = key(20, "labels with a recall of their own; the others share one figure", unit="labels", ge=0, le=100)
        loss_floor: float = key(1e-6, "least probability a label is taken to have had in the loss", gt=0, lt=1)

    def __init__(self, parts: Mapping[str, AnswerMetric]) -> None:
        self.parts = dict(parts)

    @classmethod
    def of(cls, settings: "Metrics.Settings") -> "Metrics":
        """Every metric of `METRICS`, as configured."""
        fade, window = settings.fade, settings.window
        return cls(
            {
                "accuracy": FadingAccuracy(fade),
                "windowed_accuracy": WindowedAccuracy(window),
                "kappa": CohenKappa(window),
                "recall": PerClassRecall(settings.class_fade, settings.top_labels),
                "log_loss": LogLoss(fade, settings.loss_floor),
                "no_change": NoChange(fade),
                "majority": Majority(fade),
            }
        )

    def update(self, labels: Array, logits: Array) -> Answers:
        """Take rows in stream order; gives back the scored answers, whose `errors` go to the detectors."""
        answers = score(labels, logits)
        for part in self.parts.values():
            part.take(answers)
        return answers

    def values(self) -> dict[str, float]:
        """All figures by name, in order."""
        return {name: value for part in self.parts.values() for name, value in part.values().items()}

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        return State.nest({name: part.state() for name, part in self.parts.items()})

    def restore(self, state: State) -> None:
        """Go on from a saved state. Errors: CheckpointError naming the metric whose part is missing or incomplete."""
        for name, part in self.parts.items():
            try:
                part.restore(state.under(name))
            except KeyError as error:
                raise CheckpointError(
                    f"metric '{name}': the checkpoint lacks {error}: it was written by a program without it"
                ) from error
