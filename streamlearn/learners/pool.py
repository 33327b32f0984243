"""The default for real streams: simple experts and a network of two speeds, each trusted by how well it predicted so far.

The present pool weighs all members by the stream's own newest labels. That forgets on purpose, so a question that resembles
nothing recent, or of which it is less sure than it usually is, goes to the fallback pool: the network's slow and fast weights,
and the law of labels. Which questions these are is measured on the stream itself: the share of its rows that would be taken
for the past is held at a quantile.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from streamlearn.kernels import pool as kernel
from streamlearn.kernels.presence import Verdicts
from streamlearn.learners.members import label_law, partitions, plastic_mlp, quantile_ramps, sliding_look_ahead
from streamlearn.learners.members.columns import Columns
from streamlearn.learners.members.columns import Settings as InputsSettings
from streamlearn.learners.members.earlier import Earlier, pack, unpack
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.learners.members.label_law import Settings as LawSettings
from streamlearn.learners.members.member import Member, Rows, Size
from streamlearn.learners.members.partitions import Settings as PartitionsSettings
from streamlearn.learners.members.plastic_mlp import Settings as PlasticSettings
from streamlearn.learners.members.presence import GateSettings, Presence
from streamlearn.learners.members.quantile_ramps import Settings as RampsSettings
from streamlearn.learners.members.sliding_look_ahead import SLOW, TwoSpeeds
from streamlearn.learners.members.sliding_look_ahead import Settings as LookAheadSettings
from streamlearn.learners.row_by_row import RowByRow
from streamlearn.learners.task import Task
from streamlearn.records import About, Answer, Answering, Array, State, no_evidence
from streamlearn.settings import Section, key, other

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
TWO_SPEEDS = sliding_look_ahead.NAME
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


class Weights:
    """One log-linear pool over named answers.

    Source  Genest and Zidek 1986, logarithmic opinion pools; Duchi, Hazan, Singer 2011, AdaGrad, here with fading sums, as
            the best mixture of members moves with the stream. Weights are free: a member may count double, or against itself.
    """

    def __init__(self, names: Sequence[str], settings: "PoolSettings") -> None:
        self.names, self.settings = names, settings
        self._trust = kernel.Trust(np.full(len(names), 1.0 / len(names)), np.zeros(len(names)))

    def run(self, answers: Mapping[str, Array], rows: Rows, earlier: Earlier) -> Array:
        """Log-probabilities of rows, each before its own label; learns the weights where rows are learned.

        Rows that were answered `earlier` are learned from by what was said of them then.
        """
        now, then = (np.stack([given[name] for name in self.names]) for given in (answers, earlier.answers))
        own, out = self.settings, np.zeros(now.shape[1:])
        pace = kernel.Pace(own.rate, own.fade, own.floor)
        kernel.mix(kernel.Answers(now, earlier.lag, then), rows, pace, self._trust, out)
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


class SteadyRamps(RampsSettings):
    """Quantile ramps at a tenth of the rate."""

    rate: float = other(RampsSettings, "rate", 0.003)


class SettledRamps(RampsSettings):
    """Quantile ramps at a hundredth of the rate."""

    rate: float = other(RampsSettings, "rate", 0.0003)


class SteadyPartitions(PartitionsSettings):
    """Partitions at a tenth of the rate."""

    rate: float = other(PartitionsSettings, "rate", 0.3)


class SettledPartitions(PartitionsSettings):
    """Partitions at a hundredth of the rate."""

    rate: float = other(PartitionsSettings, "rate", 0.03)


class Pool(RowByRow):
    """Implements `protocols.Learner`."""

    class Settings(Section):
        """Pool of members behind a presence gate."""

        members: tuple[Name, ...] = key(MEMBERS, "who takes part", min_length=1)
        inputs: InputsSettings = key(InputsSettings(), "how inputs are shown")
        weights: PoolSettings = key(PoolSettings(), "how members are weighed")
        gate: GateSettings = key(GateSettings(), "which questions are about the past")
        quantile_ramps: RampsSettings = key(RampsSettings(), "the member of that name")
        steady_ramps: SteadyRamps = key(SteadyRamps(), "the member of that name")
        settled_ramps: SettledRamps = key(SettledRamps(), "the member of that name")
        partitions: PartitionsSettings = key(PartitionsSettings(), "the member of that name")
        steady_partitions: SteadyPartitions = key(SteadyPartitions(), "the member of that name")
        settled_partitions: SettledPartitions = key(SettledPartitions(), "the member of that name")
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
        self._network: TwoSpeeds | None = None
        if TWO_SPEEDS in settings.members:
            scaled = isinstance(self._inputs, Columns)
            self._network = TwoSpeeds(settings.sliding_look_ahead, self.size(20), task, scaled=scaled)
            self._members[TWO_SPEEDS] = self._network
        self._voices = [*self._members, *((SLOW,) if TWO_SPEEDS in self._members else ())]
        self._now = Weights(list(self._members), settings.weights)
        self._ever = self._fallback()
        self._presence = self._gate()
        self.memory_capacity = sum(member.memory_capacity for member in self._members.values())

    def _fallback(self) -> Weights | None:
        names = [SLOW, *(name for name in (TWO_SPEEDS, label_law.NAME) if name in self._members)]
        return Weights(names, self.settings.weights) if TWO_SPEEDS in self._members else None

    def _gate(self) -> Presence | None:
        size = self.size(21)
        if self._ever is None or not self.settings.gate.quantile:
            return None
        return Presence(self.settings.gate, columns=size.inputs, seed=size.seed)

    def _run(self, rows: Rows, about: About) -> Array:
        if about == "ever" and TWO_SPEEDS in self._members:
            return self._members[TWO_SPEEDS].run(rows)[SLOW]
        return self._mixed(self._said(rows), rows, about=about)[0]

    def answer(self, x: Array) -> Answer:
        """See `protocols.Learner`."""
        rows = self._asked(x)
        if not rows.width:
            logits = np.zeros((len(x), 0), np.float32)
            return Answer(logits, pack([logits] * len(self._voices), np.full(len(x), np.inf), rows.numbers))
        said = self._said(rows)
        logits, verdicts = self._mixed(said, rows)
        return Answer(logits.astype(np.float32), pack([said[name] for name in self._voices], verdicts.scores, rows.numbers))

    def _learn(self, rows: Rows, evidence: Array) -> tuple[Array, Mapping[str, float]]:
        logits, verdicts = self._mixed(self._said(rows), rows, unpack(evidence, self._voices, rows))
        past = int((~verdicts.here).sum()) / max(1, len(verdicts.here))
        return logits, self._measures(past)

    def _said(self, rows: Rows) -> dict[str, Array]:
        """What every part says of rows."""
        said: dict[str, Array] = {}
        for member in self._members.values():
            said |= member.run(rows)
        return said

    def _mixed(
        self, said: Mapping[str, Array], rows: Rows, earlier: Earlier | None = None, *, about: About = "auto"
    ) -> tuple[Array, Verdicts]:
        """Answers of the pools, as the gate decides, and its verdicts."""
        earlier = earlier or unpack(no_evidence(len(rows.z)), self._voices, rows)
        present = self._now.run(said, rows, earlier)
        if about != "auto" or self._ever is None or self._presence is None:
            return present, Verdicts(np.ones(len(present), bool), np.zeros(len(present)))
        fallback = self._ever.run(said, rows, earlier)
        with np.errstate(invalid="ignore"):  # before the first label nobody says anything
            leads = present.max(1) - fallback.max(1)
        verdicts = self._presence.run(rows.z, leads, rows.learned, earlier.scores)
        return np.where(verdicts.here[:, None], present, fallback), verdicts

    def _measures(self, past: float) -> Mapping[str, float]:
        measures = {f"member_weight/{name}": value for name, value in self._now.values().items()}
        if self._presence is not None:
            measures["answered_from_past_ratio"] = past
        return measures if self._network is None else {**measures, **self._network.measures}

    def hasten(self, factor: float) -> bool:
        """See `protocols.Hastened`. It is the network of two speeds that has step sizes of its own."""
        return self._network is not None and self._network.hasten(factor)

    def _as_made(self) -> RowByRow:
        return type(self)(self.settings, self.task)

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
        return Answering("pool", arrays, settings)

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        total: Counter[int] = Counter()
        for member in self._members.values():
            total.update(member.memory_labels())
        return dict(total)
