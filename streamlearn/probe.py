"""Whether the model still knows what it knew, without a test set: a sample of the stream that is never trained on.

A small share of the labelled records goes here instead of to the learner, by a seeded draw in the order of the journal. It is
kept by era, a stretch of so many records, and within an era by class, in bounded room; when there are more eras than there is
room for, neighbours become one and eras twice as long. On a schedule that counts records all of it is put to the current
model: retention per era, and from that forgetting and backward transfer. Owned by the learner's thread, part of the state.

Source  Lopez-Paz and Ranzato 2017, Gradient Episodic Memory, equation 3 (backward transfer); Chaudhry et al. 2018, Riemannian
        walk, section 3.2 (forgetting); Chrysakis and Moens 2020, algorithm 1 (class-balancing reservoir). Tasks are eras here,
        and test images are records of the stream itself.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.records import About, Array, Json, State
from streamlearn.settings import Section, key

SCORED: tuple[About, ...] = ("auto", "ever")
LEAST_ROWS = 20  # of a class before it is called best or worst
SLICE = 256  # rows asked at once


class Settings(Section):
    """The sample of the stream that is never trained on, which shows what the model still knows."""

    share: float = key(
        0.0,
        "share of the labelled records that is kept from the learner to test it, as 0.05; 0: none",
        ge=0,
        le=0.5,
    )
    max_rows: int = key(2000, "records kept, an equal part for each era", unit="rows", ge=2)
    max_bytes: int = key(32 << 20, "memory they may take", unit="bytes", ge=1)
    max_eras: int = key(
        20, "eras told apart; of more, neighbours become one and eras twice as long", ge=2, le=64, multiple_of=2
    )
    era_records: int = key(1000, "labelled records of an era, until eras become longer", unit="records", ge=1)
    score_every: int = key(5000, "labelled records between two tests of the model; one is made at each era's end", ge=1)
    first_rows: int = key(
        10, "records of a new label that are learned before one may be kept from the learner", unit="rows", ge=0
    )


@dataclass(slots=True)
class Era:
    """What is kept of one stretch of the stream."""

    rows: dict[int, list[Array]] = field(default_factory=dict)  # label row → inputs
    offered: Counter[int] = field(default_factory=Counter)  # label row → records that came here, kept or not

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def largest(self) -> int:
        """The label of which most is held, the lowest of several."""
        return max(sorted(self.rows), key=lambda label: len(self.rows[label]))


class Probe:
    """The sample and what the model made of it."""

    def __init__(self, settings: Settings, *, seed: int) -> None:
        self.settings, self._seed = settings, seed
        self.taken = 0  # records that went here: their outcome
        self.records = 0  # labelled records offered, taken or not
        self.scores = 0  # tests made
        self.scored_at = 0  # records at the newest test
        self.era_records = settings.era_records
        self.eras: list[Era] = []
        self.now: dict[str, list[float]] = {about: [] for about in SCORED}  # accuracy by era
        self.matrix: dict[str, list[list[float]]] = {about: [] for about in SCORED}  # the same at each era's end
        self.classes: dict[int, float] = {}  # label row → accuracy over all eras, of `auto`
        self.best: dict[int, tuple[float, int]] = {}  # label row → best of that at an era's end, and records then
        self._met: Counter[int] = Counter()
        self._draws = 0

    def offer(self, x: Array, label: int) -> bool:
        """Show the next labelled record; True when it is kept from the learner."""
        if not self.settings.share:
            return False
        era = self._era()
        self.records += 1
        chance = self._draw()
        if self._met[label] < self.settings.first_rows:
            self._met[label] += 1
            return False
        if chance >= self.settings.share:
            return False
        self.taken += 1
        self._keep(era, np.array(x, np.float32), label)
        return True

    @property
    def is_due(self) -> bool:
        """Whether the model is to be tested now, before the next record."""
        ends = self.records % self.settings.score_every == 0 or self.records % self.era_records == 0
        return bool(self.settings.share) and ends and self.records > self.scored_at

    def _era(self) -> Era:
        if self.records // self.era_records == self.settings.max_eras:
            self._lengthen()
        if self.records // self.era_records == len(self.eras):
            self.eras.append(Era())
        return self.eras[-1]

    def _room(self, x: Array) -> int:
        rows = min(self.settings.max_rows, self.settings.max_bytes // max(1, x.nbytes))
        return max(1, rows // self.settings.max_eras)

    def _keep(self, era: Era, x: Array, label: int) -> None:
        """Into the era; when it is full, the class held most makes room, or the row takes its chance within its own class."""
        era.offered[label] += 1
        held = era.rows.setdefault(label, [])
        if len(era) < self._room(x):
            held.append(x)
        elif len(held) < len(era.rows[largest := era.largest()]):
            del era.rows[largest][int(self._draw() * len(era.rows[largest]))]
            held.append(x)
        elif (slot := int(self._draw() * era.offered[label])) < len(held):
            held[slot] = x

    def _lengthen(self) -> None:
        """Each two neighbours become one era."""
        pairs = list(zip(self.eras[::2], self.eras[1::2], strict=True))
        weights = [(sum(a.offered.values()), sum(b.offered.values())) for a, b in pairs]
        self.eras = [self._joined(a, b) for a, b in pairs]
        for about in SCORED:
            self.now[about] = _paired(self.now[about], weights)
            self.matrix[about] = [_paired(row, weights) for row in self.matrix[about][1::2]]
        self.era_records *= 2

    def _joined(self, a: Era, b: Era) -> Era:
        """Of what is too much, the class held most gives, from the half that is held more closely."""
        halves = [{label: list(rows) for label, rows in each.rows.items()} for each in (a, b)]
        sizes = [x.nbytes for half in halves for rows in half.values() for x in rows]
        room = self._room(np.zeros(max(sizes, default=4) // 4, np.float32))
        while counts := Counter({n: len(r) for n, r in halves[0].items()}) + Counter({n: len(r) for n, r in halves[1].items()}):
            if counts.total() <= room:
                break
            label = max(sorted(counts), key=counts.__getitem__)
            density = [len(half.get(label, ())) / max(1, era.offered[label]) for half, era in zip(halves, (a, b), strict=True)]
            rows = halves[int(density[1] > density[0])][label]
            del rows[int(self._draw() * len(rows))]
        joined = {label: halves[0].get(label, []) + halves[1].get(label, []) for label in sorted({*halves[0], *halves[1]})}
        return Era({label: rows for label, rows in joined.items() if rows}, a.offered + b.offered)

    def score(self, predict: Callable[[Array, About], Array]) -> None:
        """Test the model on all that is kept. `predict(x, about)` gives its logits."""
        self.scores += 1
        self.scored_at = self.records
        is_end = self.records % self.era_records == 0
        for about in SCORED:
            hits = [{label: _hits(predict, rows, label, about) for label, rows in era.rows.items()} for era in self.eras]
            self.now[about] = [_accuracy(each, era) for each, era in zip(hits, self.eras, strict=True)]
            if is_end:
                self.matrix[about].append(list(self.now[about]))
            if about == "auto":
                self._note_classes(hits, is_end=is_end)

    def _note_classes(self, hits: Sequence[Mapping[int, float]], *, is_end: bool) -> None:
        rows: Counter[int] = Counter()
        right: dict[int, float] = {}
        for each, era in zip(hits, self.eras, strict=True):
            for label, share in each.items():
                rows[label] += len(era.rows[label])
                right[label] = right.get(label, 0.0) + share * era.offered[label]
        offered = sum((era.offered for era in self.eras), Counter[int]())
        self.classes = {label: right[label] / offered[label] for label in sorted(right) if rows[label] >= LEAST_ROWS}
        for label, value in self.classes.items():
            if is_end and value > self.best.get(label, (-1.0, 0))[0]:
                self.best[label] = value, self.records

    def values(self) -> dict[str, float]:
        """Figures by name; NaN where there is none yet.

        `worst_drop` is that of the class furthest below its own best, `worst_best_age` the labelled records since that best.
        """
        falls = [(self.best[n][0] - value, self.best[n][1]) for n, value in self.classes.items() if n in self.best]
        drop, best_at = max(falls, key=lambda fall: fall[0], default=(math.nan, math.nan))
        figures = {
            "rows": float(sum(map(len, self.eras))),
            "records": float(self.taken),
            "scores": float(self.scores),
            "era_records": float(self.era_records),
            "worst_class": min(self.classes.values(), default=math.nan),
            "worst_drop": drop,
            "worst_best_age": self.records - best_at,
        }
        for about in SCORED:
            figures |= {f"{name}/{about}": value for name, value in self._transfer(about).items()}
        return figures

    def accuracy_matrix(self) -> list[list[Json]]:
        """Accuracy of `auto` on each era, one row for each era's end and one for the newest test: for the page."""
        rows: list[list[Json]] = _json([*self.matrix["auto"], self.now["auto"]])
        return rows

    def best_of_eras(self) -> list[tuple[float, int] | None]:
        """Of `auto` on each era: the best at an era's end, its own or later, and labelled records then, the first of equals."""
        ends = self.matrix["auto"]
        tests = [[(row[era], at) for at, row in enumerate(ends[era:], era + 1)] for era in range(len(self.now["auto"]))]
        known = [[(value, at * self.era_records) for value, at in each if not math.isnan(value)] for each in tests]
        return [max(each, key=lambda test: test[0], default=None) for each in known]

    def _transfer(self, about: About) -> dict[str, float]:
        """Over the eras that are past: mean loss against each one's best, and mean change since its own end."""
        now, ends = self.now[about], self.matrix[about]
        past = [era for era in range(min(len(now), len(ends))) if not math.isnan(now[era]) and not math.isnan(ends[era][era])]
        best = [max(row[era] for row in ends[era:]) for era in past]
        return {
            "retention": _mean([value for value in now if not math.isnan(value)]),
            "forgetting": _mean([top - now[era] for top, era in zip(best, past, strict=True)]),
            "backward_transfer": _mean([now[era] - ends[era][era] for era in past]),
        }

    def state(self) -> State:
        """All rows, counts, the matrices; random numbers follow from the seed and how many were drawn."""
        kept = [(e, label, x) for e, era in enumerate(self.eras) for label, rows in era.rows.items() for x in rows]
        offered = [(e, label, n) for e, era in enumerate(self.eras) for label, n in sorted(era.offered.items())]
        names = ("taken", "records", "scores", "scored_at", "era_records", "_draws")
        values = {name.lstrip("_"): getattr(self, name) for name in names}
        tables: dict[str, Any] = {"now": self.now, "matrix": self.matrix}
        best = [[label, *found] for label, found in sorted(self.best.items())]
        return State(
            {
                "x": np.array([x for *_, x in kept], np.float32),
                "places": np.array([place[:2] for place in kept], np.int64).reshape(-1, 2),
                "offered": np.array(offered, np.int64).reshape(-1, 3),
                "met": np.array(sorted(self._met.items()), np.int64).reshape(-1, 2),
            },
            values
            | {name: _plain(table) for name, table in tables.items()}
            | {"best": best, "eras": len(self.eras)}
            | {"classes": [list(item) for item in self.classes.items()]},
        )

    def restore(self, state: State) -> None:
        """Go on from a saved state; one from before there was a probe leaves it empty. Errors: CheckpointError."""
        if "taken" not in state.values:
            return
        values, arrays = state.values, state.arrays
        if values["eras"] > self.settings.max_eras:
            raise CheckpointError(f"the checkpoint holds {values['eras']} eras: expected probe.max_eras of that or more")
        for name in ("taken", "records", "scores", "scored_at", "era_records"):
            setattr(self, name, values[name])
        self._draws = values["draws"]
        self.now, self.matrix = _numbers(values["now"]), _numbers(values["matrix"])
        self.best = {label: (value, at) for label, value, at in values["best"]}
        self.classes = dict(values["classes"])
        self._met = Counter(dict(arrays["met"].tolist()))
        self.eras = [Era() for _ in range(values["eras"])]
        for (e, label), x in zip(arrays["places"].tolist(), arrays["x"], strict=True):
            self.eras[e].rows.setdefault(label, []).append(x.copy())
        for e, label, n in arrays["offered"].tolist():
            self.eras[e].offered[label] = n

    def _draw(self) -> float:
        """The next number in [0, 1): SplitMix64 of seed and count."""
        self._draws += 1
        z = (self._seed * 0xD1342543DE82EF95 + self._draws * 0x9E3779B97F4A7C15) & _64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)


_64 = (1 << 64) - 1


def _hits(predict: Callable[[Array, About], Array], rows: Sequence[Array], label: int, about: About) -> float:
    """Share of these rows, all of one label, that are answered right."""
    right = 0
    for x in _slices(rows):
        logits = predict(x, about)
        right += int((logits.argmax(1) == label).sum()) if logits.shape[1] else 0
    return right / len(rows)


def _slices(rows: Sequence[Array]) -> Iterator[Array]:
    for first in range(0, len(rows), SLICE):
        yield np.stack(rows[first : first + SLICE])


def _accuracy(hits: Mapping[int, float], era: Era) -> float:
    """Each class counts by how often it came, not by how much of it is kept."""
    offered = sum(era.offered[label] for label in hits)
    return sum(share * era.offered[label] for label, share in hits.items()) / offered if offered else math.nan


def _paired(values: Sequence[float], weights: Sequence[tuple[int, int]]) -> list[float]:
    """Means of neighbours, each by its weight; a part that is missing or empty counts nothing."""
    means = []
    for i, pair in enumerate(weights[: (len(values) + 1) // 2]):
        found = [(v, w) for v, w in zip(values[2 * i : 2 * i + 2], pair, strict=False) if w and not math.isnan(v)]
        means.append(sum(v * w for v, w in found) / sum(w for _, w in found) if found else math.nan)
    return means


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _plain(table: Mapping[str, Any]) -> dict[str, Json]:
    """JSON has no NaN."""
    return {about: [_json(each) for each in rows] for about, rows in table.items()}


def _json(value: Any) -> Json:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return [_json(each) for each in value]


def _numbers(table: Mapping[str, Json]) -> dict[str, Any]:
    return {about: _nan(rows) for about, rows in table.items()}


def _nan(value: Json) -> Any:
    if isinstance(value, list):
        return [_nan(each) for each in value]
    return math.nan if value is None else value
