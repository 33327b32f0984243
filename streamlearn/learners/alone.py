"""Each simple member of the pool as a learner by itself."""

from collections.abc import Mapping
from typing import Any, ClassVar

from streamlearn.learners.members import columns, label_law, partitions, plastic_mlp, quantile_ramps
from streamlearn.learners.members.member import Member, Rows
from streamlearn.learners.row_by_row import RowByRow
from streamlearn.learners.task import Task
from streamlearn.records import About, Answering, Array, State
from streamlearn.settings import key

INPUTS = columns.Settings()


class Alone(RowByRow):
    """One member, and inputs as it is shown them."""

    name: ClassVar[str]
    kind: ClassVar[type[Any]]  # makes a `Member` from settings and size

    def __init__(self, settings: Any, task: Task) -> None:
        super().__init__(task, settings.inputs)
        self._settings = settings
        self._member: Member = self.kind(settings, self.size(1))
        self.memory_capacity = self._member.memory_capacity

    def _run(self, rows: Rows, about: About) -> Array:  # noqa: ARG002 one answer to all
        return self._member.run(rows)[self.name]

    def _learn(self, rows: Rows, evidence: Array) -> tuple[Array, Mapping[str, float]]:  # noqa: ARG002 nothing is weighed
        return self._member.run(rows)[self.name], {}

    def _as_made(self) -> RowByRow:
        return type(self)(self._settings, self.task)

    def _grow(self, capacity: int) -> None:
        self._member.grow(capacity)

    def _parts(self) -> Mapping[str, State]:
        return {self.name: self._member.state()}

    def _restore_parts(self, state: State) -> None:
        self._member.restore(state.under(self.name))

    def answering(self) -> Answering:
        """See `protocols.Learner`."""
        question = self.question()
        arrays = {**self.shown(question), **self._member.arrays(question)}
        return Answering("pool", arrays, {**self.how_shown(), "now": [self.name]})

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return self._member.memory_labels()


class QuantileRamps(Alone):
    """See `members.quantile_ramps`."""

    class Settings(quantile_ramps.Settings):
        """Quantile ramps."""

        inputs: columns.Settings = key(INPUTS, "how inputs are shown")

    name = quantile_ramps.NAME
    kind = quantile_ramps.QuantileRamps


class Partitions(Alone):
    """See `members.partitions`."""

    class Settings(partitions.Settings):
        """Random nested partitions."""

        inputs: columns.Settings = key(INPUTS, "how inputs are shown")

    name = partitions.NAME
    kind = partitions.Partitions


class PlasticMLP(Alone):
    """See `members.plastic_mlp`."""

    class Settings(plastic_mlp.Settings):
        """Plastic multi-layer perceptron."""

        inputs: columns.Settings = key(INPUTS, "how inputs are shown")

    name = plastic_mlp.NAME
    kind = plastic_mlp.PlasticMLP


class LabelLaw(Alone):
    """See `members.label_law`."""

    class Settings(label_law.Settings):
        """Label law."""

        inputs: columns.Settings = key(INPUTS, "how inputs are shown; they do not matter to it")

    name = label_law.NAME
    kind = label_law.LabelLaw
