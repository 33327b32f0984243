"""Samples that wait for their labels, and labels that wait for their samples: bounded, expiring, part of the checkpoint.

A sample waits with the answer that was given for it, and that answer is what is scored once the label comes (P2). Ids are
kept as 64-bit hashes. The clock is looked at in `due` alone; what expires is then a decision in the journal, by `expire`.
Owned by the learner's thread.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from streamlearn.confidence import Calibration, Estimate
from streamlearn.metrics import FadingMean
from streamlearn.records import NO_EVIDENCE, Array, Batch, Given, State
from streamlearn.settings import Section, key

Outcome: TypeAlias = Literal["expired", "joined", "unmatched", "duplicate"]
OUTCOMES: tuple[Outcome, ...] = ("expired", "joined", "unmatched", "duplicate")
ROW_BYTES = 200  # about what a row costs beside its arrays
LOOK_EVERY_MS = 1000
Place: TypeAlias = tuple[int, int]
"""Index of a partition, and a position in it."""
NO_ANSWER = Given(0, np.zeros(0, np.float32))


@dataclass(slots=True)
class Waiting:
    """A sample without its label."""

    id: int
    x: Array  # float32 [*shape], its own copy
    partition: int  # index into the daemon's list of names
    at: int
    time_ms: int  # of the event; -1 where unknown
    context: int  # -1 where unknown
    given: Given = NO_ANSWER
    sequence: int = 0
    expected: float = math.nan  # the chance that the answer is right, by what was known when it was given
    arrived_ms: int = 0  # by this process's clock; no part of the state

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return self.x.nbytes + self.given.logits.nbytes + self.given.evidence.nbytes + ROW_BYTES


class Early(NamedTuple):
    """A label that came before its sample."""

    row: int
    time_ms: int
    sequence: int
    arrived_ms: int


class Settings(Section):
    """Samples whose labels come later, by id."""

    max_rows: int = key(
        10_000,
        "samples that may wait for their labels, and labels for their samples; the oldest go first",
        unit="rows",
        ge=1,
    )
    max_bytes: int = key(
        64 << 20,
        "memory that waiting samples may take; the oldest go first. What a pool's members said of them takes at most half",
        unit="bytes",
        ge=1,
    )
    expire_s: float = key(86_400.0, "how long a sample waits for its label, and a label for its sample", unit="seconds", gt=0)
    remember_ids: int = key(
        100_000, "ids that were joined and are remembered: a label that comes again within so many is a duplicate", ge=0
    )
    record_answers: bool = key(
        False, "record answers that servers give to questions with an id, so that a late label scores what was really answered"
    )
    max_answers: int = key(100_000, "recorded answers kept on disk; the oldest go first", unit="records", ge=1)
    fade: float = key(0.999, "weight of an answer against the next one in served accuracy and calibration", gt=0, le=1)


class Pending:
    """The table. What is put in it keeps the order of the journal, and the oldest leave first."""

    def __init__(self, settings: Settings, *, clock_ms: Callable[[], int]) -> None:
        self.settings, self._clock_ms = settings, clock_ms
        self.samples: dict[int, Waiting] = {}
        self.early: dict[int, Early] = {}
        self.counts: Counter[str] = Counter()  # by outcome
        self.expiries: Counter[str] = Counter()  # by reason: samples and labels that waited in vain
        self.unanswered = 0  # joined without an answer given before: scored by the answer at label time
        self.served = FadingMean(settings.fade)  # served answers that were right
        self.calibration = Calibration(settings.fade)
        self.size_bytes = self._evidence_bytes = 0
        self.delays_s: list[float] = []  # of labels that came since they were last taken; no part of the state
        self._joined: dict[int, None] = {}
        self._given: dict[Place, Given] = {}  # until the row is learned
        self._sequence = 0
        self._looked_ms = 0

    def came(self, id_: int) -> bool:
        """Whether this id was joined already."""
        return id_ in self._joined

    def wait(self, sample: Waiting) -> None:
        """Let a sample wait; its answer may still be set by `give`. The oldest make room, and have expired."""
        sample.sequence, sample.arrived_ms = self._sequence, self._clock_ms()
        self._sequence += 1
        self.samples[sample.id] = sample
        self._count(sample, 1)
        self._make_room()

    def give(self, sample: Waiting, given: Given) -> None:
        """The answer that was given for a waiting sample."""
        if self.samples.get(sample.id) is not sample:  # it has expired
            return
        self._count(sample, -1)
        if self._evidence_bytes + given.evidence.nbytes > self.settings.max_bytes // 2:
            given = given._replace(evidence=NO_EVIDENCE)
        sample.given, sample.expected = given, self.calibration.chance(given.confidence)
        self._count(sample, 1)
        self._make_room()

    def _count(self, sample: Waiting, times: int) -> None:
        self.size_bytes += times * sample.size_bytes
        self._evidence_bytes += times * sample.given.evidence.nbytes

    def _make_room(self) -> None:
        while len(self.samples) > self.settings.max_rows or (self.size_bytes > self.settings.max_bytes and self.samples):
            self._drop(next(iter(self.samples)), "bound")

    def wait_for_sample(self, id_: int, row: int, time_ms: int) -> None:
        """Let a label wait."""
        self.early[id_] = Early(row, time_ms, self._sequence, self._clock_ms())
        self._sequence += 1
        if len(self.early) > self.settings.max_rows:
            self._forget(next(iter(self.early)), "bound")

    def join(self, id_: int, row: int, time_ms: int) -> Waiting | None:
        """The sample that waited for this label, if any: it waits no more, and its answer is scored."""
        sample = self.samples.pop(id_, None)
        if sample is None:
            return None
        self._count(sample, -1)
        self._remember(id_)
        self._delayed(sample.time_ms, time_ms, since_ms=sample.arrived_ms)
        self._score(sample.given, row, sample.expected)
        if len(sample.given.logits):
            self._given[sample.partition, sample.at] = sample.given._replace(evidence=NO_EVIDENCE)
        else:
            self.unanswered += 1
        return sample

    def join_early(self, id_: int, time_ms: int, place: Place, given: Given | None) -> int | None:
        """The row of the label that waited for this sample, if any; an answer that was served for the sample is scored."""
        label = self.early.pop(id_, None)
        if label is None:
            return None
        self._remember(id_)
        self._delayed(time_ms, label.time_ms, since_ms=None)
        if given is not None:
            self._score(given, label.row)
            self._given[place] = given
        return label.row

    def _remember(self, id_: int) -> None:
        self._joined[id_] = None
        if len(self._joined) > self.settings.remember_ids:
            del self._joined[next(iter(self._joined))]

    def _delayed(self, sample_ms: int, label_ms: int, *, since_ms: int | None) -> None:
        """By the times of the events where both are told, else by when they came; never negative."""
        if sample_ms >= 0 and label_ms >= 0:
            self.delays_s.append(max(0, label_ms - sample_ms) / 1000)
        else:
            self.delays_s.append(0.0 if since_ms is None else max(0, self._clock_ms() - since_ms) / 1000)

    def _score(self, given: Given, row: int, expected: float = math.nan) -> None:
        confidence = given.confidence
        if math.isnan(confidence):
            return
        is_right = int(given.logits.argmax()) == row
        self.calibration.update(confidence, is_right=is_right, expected=expected)
        if given.is_served:
            self.served.take([is_right])

    def drop_given(self, place: Place) -> None:
        """This row will not be learned: its answer has been scored for what it is, and is not scored by the loop."""
        self._given.pop(place, None)

    def answered(self, rows: Batch, logits: Array) -> tuple[Array, Mapping[int, int]]:
        """`logits` with the answers that were given earlier in their rows' places, and the numbers that gave those."""
        if not self._given:
            return logits, {}
        places = zip(rows.partitions.tolist(), rows.at.tolist(), strict=True)
        found = {i: given for i, place in enumerate(places) if (given := self._given.pop(place, None))}
        width = max([logits.shape[1], *(len(given.logits) for given in found.values())])
        whole = np.full((len(rows), width), -np.inf, np.float32)
        whole[:, : logits.shape[1]] = logits
        for i, given in found.items():
            whole[i] = -np.inf
            whole[i, : len(given.logits)] = given.logits
        return whole, {i: given.number for i, given in found.items()}

    def due(self) -> int | None:
        """The sequence before which all has waited for too long by now; None when nothing has. Looks once a second."""
        now_ms = self._clock_ms()
        if now_ms - self._looked_ms < LOOK_EVERY_MS:
            return None
        self._looked_ms, too_old_ms = now_ms, now_ms - 1000 * self.settings.expire_s
        old = [each.sequence for each in _older(self.samples.values(), too_old_ms)]
        old += [each.sequence for each in _older(self.early.values(), too_old_ms)]
        return max(old) + 1 if old else None

    def expire(self, until: int) -> None:
        """Nothing from before this sequence waits any longer."""
        for id_ in [each.id for each in self.samples.values() if each.sequence < until]:
            self._drop(id_, "time")
        for id_ in [id_ for id_, each in self.early.items() if each.sequence < until]:
            self._forget(id_, "time")

    def _drop(self, id_: int, reason: str) -> None:
        self._count(self.samples.pop(id_), -1)
        self.counts["expired"] += 1
        self.expiries[reason] += 1

    def _forget(self, id_: int, reason: str) -> None:
        del self.early[id_]
        self.counts["unmatched"] += 1
        self.expiries[reason] += 1

    def waiting(self) -> dict[str, int]:
        """Records that wait, by what for."""
        return {"label": len(self.samples), "sample": len(self.early)}

    def estimate(self) -> Estimate:
        """The accuracy of the answers whose labels have not come."""
        return self.calibration.estimate([sample.given.confidence for sample in self.samples.values()])

    def take_delays_s(self) -> list[float]:
        """Delays of the labels that came since the last call."""
        delays, self.delays_s = self.delays_s, []
        return delays

    def state(self) -> State:
        """Both tables, ids that were joined, answers of rows that are not learned yet, counts and what confidence is worth."""
        values = {
            "counts": dict(self.counts),
            "expiries": dict(self.expiries),
            "unanswered": self.unanswered,
            "sequence": self._sequence,
            "served": dict(self.served.state().values),
        }
        own = State(
            {
                "early_ids": np.array(list(self.early), np.uint64),
                "early": np.array([each[:3] for each in self.early.values()], np.int64).reshape(-1, 3),
                "joined": np.array(list(self._joined), np.uint64),
            },
            values,
        )
        kept = [Waiting(0, np.zeros(0, np.float32), *place, -1, -1, given) for place, given in self._given.items()]
        return State.nest(
            {
                "own": own,
                "samples": _packed(list(self.samples.values())),
                "given": _packed(kept),
                "calibration": self.calibration.state(),
            }
        )

    def restore(self, state: State) -> None:
        """Go on from a saved state; one from before there was this table leaves it empty. What waits begins to age anew."""
        if "own" not in state.values:
            return
        own, now_ms = state.under("own"), self._clock_ms()
        self.counts, self.expiries = Counter(own.values["counts"]), Counter(own.values["expiries"])
        self.unanswered, self._sequence = own.values["unanswered"], own.values["sequence"]
        self.served.restore(State(values=own.values["served"]))
        self.calibration.restore(state.under("calibration"))
        self._joined = dict.fromkeys(own.arrays["joined"].tolist())
        early = zip(own.arrays["early_ids"].tolist(), own.arrays["early"].tolist(), strict=True)
        self.early = {id_: Early(row, ms, sequence, now_ms) for id_, (row, ms, sequence) in early}
        self._given = {(each.partition, each.at): each.given for each in _unpacked(state.under("given"))}
        self.samples, self.size_bytes, self._evidence_bytes = {}, 0, 0
        for sample in _unpacked(state.under("samples")):
            sample.arrived_ms = now_ms
            self.samples[sample.id] = sample
            self._count(sample, 1)
        self._make_room()


def hashed(sample_id: str) -> int:
    """64 bits of the id, never 0: 0 says that a row has none."""
    return int.from_bytes(hashlib.blake2b(sample_id.encode(), digest_size=8).digest(), "little") or 1


T = TypeVar("T", Waiting, Early)


def _older(waiting: Iterable[T], than_ms: float) -> Iterator[T]:
    """The first of them, as long as they came before that time."""
    return takewhile(lambda each: each.arrived_ms <= than_ms, waiting)


def _packed(samples: Sequence[Waiting]) -> State:
    numbers = [(s.partition, s.at, s.time_ms, s.context, s.sequence, s.given.number, s.given.is_served) for s in samples]
    return State(
        {
            "x": np.array([s.x for s in samples], np.float32),
            "ids": np.array([s.id for s in samples], np.uint64),
            "expected": np.array([s.expected for s in samples], np.float64),
            "numbers": np.array(numbers, np.int64).reshape(-1, 7),
            "logits": np.concatenate([NO_ANSWER.logits, *(s.given.logits for s in samples)]),
            "widths": np.array([len(s.given.logits) for s in samples], np.int64),
            "evidence": np.concatenate([NO_EVIDENCE, *(s.given.evidence for s in samples)]),
            "evidence_widths": np.array([len(s.given.evidence) for s in samples], np.int64),
        }
    )


def _unpacked(state: State) -> Iterator[Waiting]:
    arrays = state.arrays
    logits = np.split(arrays["logits"], np.cumsum(arrays["widths"])[:-1])
    without = np.zeros(len(arrays["ids"]), np.int64)  # written before there was evidence
    widths = arrays.get("evidence_widths", without)
    evidence = np.split(arrays.get("evidence", NO_EVIDENCE), np.cumsum(widths)[:-1])
    for i, (id_, numbers) in enumerate(zip(arrays["ids"].tolist(), arrays["numbers"].tolist(), strict=True)):
        partition, at, time_ms, context, sequence, number, is_served = numbers
        given = Given(number, logits[i].copy(), bool(is_served), evidence=evidence[i].copy())
        expected = float(arrays["expected"][i])
        yield Waiting(id_, arrays["x"][i].copy(), partition, at, time_ms, context, given, sequence, expected)
