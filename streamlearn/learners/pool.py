"""The default for real streams: simple experts and a network of two speeds, each trusted by how well it predicted so far.

The present pool weighs all members by the stream's own newest labels. That forgets on purpose, so a question that resembles
nothing recent goes to the fallback pool: the network's slow and fast weights, and the law of labels. Which questions
these are is measured on the stream itself: the share of its rows that would be taken for the past is held at a quantile.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from streamlearn.kernels import pool as kernel
from streamlearn.learners.members import label_law, partitions, plastic_mlp, quantile_ramps
from streamlearn.learners.members.columns import Columns, Field, View
from streamlearn.learners.members.columns import Settings as InputsSettings
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.learners.members.label_law import Settings as LawSettings
from streamlearn.learners.members.look_ahead import NAME, SLOW, LookAhead
from streamlearn.learners.members.member import Member, Rows, Size
from streamlearn.learners.members.partitions import Settings as PartitionsSettings
from streamlearn.learners.members.plastic_mlp import Settings as PlasticSettings
from streamlearn.learners.members.presence import GateSettings, Presence
from streamlearn.learners.members.quantile_ramps import Settings as RampsSettings
from streamlearn.learners.row_by_row import RowByRow
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.records import About, Answering, Array, State
from streamlearn.settings import Section, key

Name = Literal[
    "quantile-ramps",
    "steady-ramps",
    "settled-ramps",
    "partitions",
    "steady-partitions",
    "settled-partitions",
    "plastic-mlp",
    "sliding-look-ahead",
    "label-law",
]
MEMBERS: tuple[Name, ...] = get_args(Name)
STEADY_RAMPS, STEADY_PARTITIONS = "steady-ramps", "steady-partitions"
SETTLED_RAMPS, SETTLED_PARTITIONS = "settled-ramps", "settled-partitions"
"""The same at a tenth and at a hundredth of the rate: where a stream stays as it is, or is mostly noise, small steps end
nearer to the best."""
KINDS: Mapping[str, Callable[[Any, Size], Member]] = {
    quantile_ramps.NAME: quantile_ramps.QuantileRamps,
    STEADY_RAMPS: partial(quantile_ramps.QuantileRamps, name=STEADY_RAMPS),
    SETTLED_RAMPS: partial(quantile_ramps.QuantileRamps, name=SETTLED_RAMPS),
    partitions.NAME: partitions.Partitions,
    STEADY_PARTITIONS: partial(partitions.Partitions, name=STEADY_PARTITIONS),
    SETTLED_PARTITIONS: partial(partitions.Partitions, name=SETTLED_PARTITIONS),
    plastic_mlp.NAME: plastic_mlp.PlasticMLP,
    label_law.NAME: label_law.LabelLaw,
}

LookAheadSettings = SlidingLookAhead.Settings


class Weights:
    """One log-linear pool over named answers.

    Source  Genest and Zidek 1986, logarithmic opinion pools; Duchi, Hazan, Singer 2011, AdaGrad, here with fading sums, as
            the best mixture of members moves with the stream. Weights are free: a member may count double, or against itself.
    """

    def __init__(self, names: Sequence[str], settings: "PoolSettings") -> None:
        self.names, self.settings = names, settings
        self._trust = kernel.Trust(np.full(len(names), 1.0 / len(names)), np.zeros(len(names)))

    def run(self, answers: Mapping[str, Array], rows: Rows) -> Array:
        """Log-probabilities of rows, each before its own label; learns the weights where rows are learned."""
        stacked = np.stack([answers[name] for name in self.names])
        own, out = self.settings, np.zeros(stacked.shape[1:])
        kernel.mix(stacked, rows, kernel.Pace(own.rate, own.fade, own.floor), self._trust, out)
        return out

    def values(self) -> dict[str, float]:
        """Each member's weight as it is now."""
        return dict(zip(self.names, self._trust.weights.tolist(), strict=True))

    def arrays(self) -> dict[str, Array]:
        """Weights, and their sums of squared gradients."""
        return self._trust._asdict()


class PoolSettings(Section):
    """How members' weights are learned."""

    rate: float = key(0.03, "step of a weight, relative to its usual gradient", gt=0)
    fade: float = key(0.99, "weight of a squared gradient after one more row", gt=0, lt=1)
    floor: float = key(0.001, "share of each member's answer that is spread over all labels", gt=0, lt=1)


class Pool(RowByRow):
    """Implements `protocols.Learner`."""

    class Settings(Section):
        """Pool of members behind a presence gate."""

        members: tuple[Name, ...] = key(MEMBERS, "who takes part", min_length=1)
        inputs: InputsSettings = key(InputsSettings(), "how inputs are shown")
        weights: PoolSettings = key(PoolSettings(), "how members are weighed")
        gate: GateSettings = key(GateSettings(), "which questions are about the past")
        quantile_ramps: RampsSettings = key(RampsSettings(), "the member of that name")
        steady_ramps: RampsSettings = key(RampsSettings(rate=0.003), "the member of that name")
        settled_ramps: RampsSettings = key(RampsSettings(rate=0.0003), "the member of that name")
        partitions: PartitionsSettings = key(PartitionsSettings(), "the member of that name")
        steady_partitions: PartitionsSettings = key(PartitionsSettings(rate=0.3), "the member of that name")
        settled_partitions: PartitionsSettings = key(PartitionsSettings(rate=0.03), "the member of that name")
        plastic_mlp: PlasticSettings = key(PlasticSettings(), "the member of that name")
        sliding_look_ahead: LookAheadSettings = key(LookAheadSettings(), "the member of that name")
        label_law: LawSettings = key(LawSettings(), "the member of that name")

    def __init__(self, settings: Settings, task: Task) -> None:
        super().__init__(task, settings.inputs)
        self.settings = settings
        self._members: dict[str, Member] = {
            name: kind(getattr(settings, name.replace("-", "_")), self.size(1 + part))
            for part, (name, kind) in enumerate(KINDS.items())
            if name in settings.members
        }
        if NAME in settings.members:
            scaled = isinstance(self._inputs, Columns)
            self._members[NAME] = LookAhead(settings.sliding_look_ahead, self.size(20), task, scaled=scaled)
        self._now = Weights(list(self._members), settings.weights)
        self._ever = self._fallback()
        self._presence = self._gate()
        self.memory_capacity = sum(member.memory_capacity for member in self._members.values())

    def _fallback(self) -> Weights | None:
        names = [SLOW, *(name for name in (NAME, label_law.NAME) if name in self._members)]
        return Weights(names, self.settings.weights) if NAME in self._members else None

    def _gate(self) -> Presence | None:
        own, features = self.settings.gate, math.prod(self.task.shape)
        if self._ever is None or not own.quantile:
            return None
        return Presence(own, features=features, is_array=isinstance(self._inputs, Field), seed=self.size(21).seed)

    def _run(self, view: View, rows: Rows, about: About) -> tuple[Array, Mapping[str, float]]:
        answers: dict[str, Array] = {}
        for member in self._members.values():
            answers |= member.run(rows)
        if about == "ever" and SLOW in answers:
            return answers[SLOW], {}
        present = self._now.run(answers, rows)
        if about != "auto" or self._ever is None or self._presence is None:
            return present, self._measures(0.0)
        here = self._presence.run(view, rows.learned)
        past = int((~here).sum()) / max(1, len(here))
        return np.where(here[:, None], present, self._ever.run(answers, rows)), self._measures(past)

    def _measures(self, past: float) -> Mapping[str, float]:
        weights = {f"member_weight/{name}": value for name, value in self._now.values().items()}
        return weights if self._presence is None else {**weights, "answered_from_past_ratio": past}

    def _grow(self, capacity: int) -> None:
        for member in self._members.values():
            member.grow(capacity)

    def _parts(self) -> Mapping[str, State]:
        parts: dict[str, State] = {name: member.state() for name, member in self._members.items()}
        parts["now"] = copies(self._now.arrays())
        if self._ever is not None:
            parts["ever"] = copies(self._ever.arrays())
        if self._presence is not None:
            parts["presence"] = self._presence.state()
        return parts

    def _restore_parts(self, state: State) -> None:
        for name, member in self._members.items():
            member.restore(state.under(name))
        put_back(self._now.arrays(), state.under("now"), part="pool")
        if self._ever is not None:
            put_back(self._ever.arrays(), state.under("ever"), part="fallback pool")
        if self._presence is not None:
            self._presence.restore(state.under("presence"))

    def answering(self) -> Answering:
        """See `protocols.Learner`."""
        question = self.question()
        arrays = {**self.shown(question), "now.weights": self._now.arrays()["weights"].copy()}
        settings = {**self.how_shown(), "floor": self.settings.weights.floor, "now": self._now.names}
        for member in self._members.values():
            arrays |= member.arrays(question)
        if self._ever is not None:
            arrays["ever.weights"] = self._ever.arrays()["weights"].copy()
            settings["ever"] = self._ever.names
        if self._presence is not None:
            arrays |= self._presence.arrays()
            settings |= self._presence.values()
        return Answering("pool", arrays, settings)

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        total: Counter[int] = Counter()
        for member in self._members.values():
            total.update(member.memory_labels())
        return dict(total)
