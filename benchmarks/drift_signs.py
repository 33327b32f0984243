"""What a learner shows while it learns, of which some might tell of a change before its errors do."""

import math
from collections.abc import Sequence

import numpy as np

from streamlearn.drift import Adwin, Features, Inputs
from streamlearn.metrics import score
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, LearnReport

CALL = 20  # rows of one call, and of one value of a sign
OWN = ("gradient_alignment", "step_size_zero_ratio", "update_norm")
"""Told by learners themselves."""
SIGNS = (*OWN, "replay_loss", "replay_changed", "members_moved")
KEPT = 100  # rows of the past that are asked again after every call
PATIENCE = 1000  # rows of warm-up and of refractory time of what watches a sign
WORST = 10.0  # nats that one answer costs at most


class Replay:
    """A uniform sample of the rows learned so far, and what the model made of it a call ago."""

    def __init__(self, seed: int) -> None:
        self._draw, self._seen = np.random.default_rng([seed, 9]), 0
        self._rows: list[tuple[int, Array, int]] = []  # (number, input, label)
        self._answers: dict[int, int] = {}  # number → what was answered

    def take(self, batch: Batch) -> None:
        """Rows that were learned."""
        for x, y in zip(batch.x, batch.labels.tolist(), strict=True):
            self._seen += 1
            if len(self._rows) < KEPT:
                self._rows.append((self._seen, x, y))
            elif (place := int(self._draw.integers(self._seen))) < KEPT:
                self._rows[place] = (self._seen, x, y)

    def asked(self, learner: Learner) -> dict[str, float]:
        """Mean loss, and the share of answers that changed since this was last asked."""
        if len(self._rows) < KEPT:
            return {}
        numbers, x, y = zip(*self._rows, strict=True)
        said = score(np.array(y), learner.predict(np.stack(x), about="auto"))
        now = dict(zip(numbers, said.guesses, strict=True))
        both = [number for number in now if number in self._answers]
        changed = float(np.mean([now[n] != self._answers[n] for n in both])) if both else math.nan
        self._answers = now
        return {"replay_loss": float(np.mean(np.minimum(WORST, -np.array(said.log_probabilities)))), "replay_changed": changed}


class Signs:
    """Values of each sign, with the row of the stream at which each came; and the doubt of answers, row by row."""

    def __init__(self, seed: int) -> None:
        self._replay = Replay(seed)
        self._weights: Array | None = None  # of a pool's members
        self._values: dict[str, list[tuple[int, float]]] = {name: [] for name in SIGNS}
        self._doubt = Adwin(Adwin.Settings(warm_up=PATIENCE))
        self._doubted: list[int] = []

    def take(self, learner: Learner, batch: Batch, report: LearnReport, at: Sequence[int]) -> None:
        """One call of the learner, on these rows of the stream."""
        found = {name: report.measures.get(name, math.nan) for name in OWN} | self._replay.asked(learner)
        found["members_moved"] = self._moved(report)
        self._replay.take(batch)
        for name, value in found.items():
            if not math.isnan(value):
                self._values[name].append((at[-1], value))
        self._doubted += [row for row, doubt in zip(at, doubts(report.logits), strict=True) if self._doubt.update(doubt)]

    def _moved(self, report: LearnReport) -> float:
        """By how much the weights of a pool's members changed."""
        weights = np.array([value for name, value in report.measures.items() if name.startswith("member_weight/")])
        before, self._weights = self._weights, weights
        return float(np.abs(weights - before).sum()) if before is not None and len(weights) else math.nan

    def fired(self) -> dict[str, list[int]]:
        """Rows at which a change of each sign was noticed, either way; of the doubt only that it rose."""
        return {f"sign/{name}": watched(values) for name, values in self._values.items() if values} | {
            "sign/doubt": self._doubted
        }


def doubts(logits: Array) -> list[float]:
    """1 − the probability of the likeliest label: what an answer knows of itself, without any label."""
    if not logits.shape[1]:
        return [1.0] * len(logits)
    top = logits.max(1, keepdims=True)
    answered = np.isfinite(top[:, 0])
    shares = np.exp(logits - np.where(answered[:, None], top, 0.0), dtype=np.float64).sum(1)
    doubt: list[float] = np.where(answered, 1.0 - 1.0 / np.maximum(shares, 1.0), 1.0).tolist()
    return doubt


def watched(values: Sequence[tuple[int, float]]) -> list[int]:
    """Rows at which Page-Hinkley, as on the inputs, says that a sign changed. (ADWIN wants more values than a sign has.)"""
    patience = PATIENCE // CALL
    told = Inputs.Settings(detectors=("page_hinkley",), watch=("mean",), warm_up=patience, refractory=patience, block=1)
    told = told.model_copy(update={"page_hinkley": told.page_hinkley.model_copy(update={"min_instances": 5})})
    found = Inputs(told, Features((1,)), recent_rows=10, most=1).take(np.array([[value] for _, value in values]))
    return [values[i][0] for i, *_ in found]
