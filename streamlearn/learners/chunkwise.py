"""A network on a stream, chunk by chunk: answer, admit, update, and undo what is not finite.

What all gradient learners share. A method of its own says in `_update` how one chunk moves the weights. All that
learning changes is a value that is replaced, never written into, so the point before a chunk is a handful of references.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.params import Params, Rows, global_norm, is_finite, masked_cross_entropy
from streamlearn.errors import CheckpointError
from streamlearn.inputs import Inputs
from streamlearn.learners.active import ActiveRows
from streamlearn.learners.named import NamedInputs
from streamlearn.learners.task import Task, check_chunks, check_labels
from streamlearn.memory import Columns, Reservoir, Undo
from streamlearn.models.classifier import build, capacity_for, mixed_seed
from streamlearn.models.mlp import MLP
from streamlearn.records import About, Answer, Answering, Array, Batch, Json, LearnReport, State, no_evidence
from streamlearn.settings import Section, key


class MemorySettings(Section):
    """The replay memory and how it is used."""

    rows: int = key(200, "samples held for replay", unit="rows", ge=1)
    with_replacement: bool = key(False, "draw replays with replacement, as the paper's code does")
    accept_reference: bool = key(False, "let item n enter with rows/(n+1) instead of rows/n, as the paper's code does")
    offer_early: bool = key(True, "samples enter after the first glance, so that later glances may replay them")


class Point(NamedTuple):
    """All that one chunk may change, besides memory and random state."""

    weights: dict[str, Params]
    active: ActiveRows
    inputs: Inputs | NamedInputs


class Turn(NamedTuple):
    """What happened to one chunk."""

    logits: Array
    rejected: bool
    measures: Mapping[str, float]


class Chunkwise(ABC):
    """Implements `protocols.Learner` for every learner that moves the weights of one network by gradients."""

    moves_by_rates: ClassVar[bool] = False
    """Whether the weights move by learned step sizes, which are the weight set `rates`."""

    def __init__(self, task: Task, *, chunk: int, memory: MemorySettings | None = None, max_contexts: int = 0) -> None:
        self.chunk = chunk
        self.memory_capacity = memory.rows if memory is not None else 0
        self.task = task
        self.kernel = "torch"
        self.allow_kernel_change = False
        self._dtype = getattr(torch, task.dtype)
        inputs = inputs_of(task)
        self.network = build(task.model, inputs.shape, seed=task.seed, start=task.start, fan_in=fan_in_of(task, inputs))
        capacity = capacity_for(task.known)
        slow = self.network.initial(capacity, self._dtype, task.device)
        self.point = Point(
            {"slow": slow, **{name: _filled(slow, value) for name, value in self._fills().items()}},
            ActiveRows.fresh(task.known, capacity, max_contexts, task.device),
            inputs,
        )
        self.generator = torch.Generator().manual_seed(mixed_seed(task.seed, 2))
        self._memory_settings = memory or MemorySettings()
        self.memory = self._new_memory() if memory else None

    def _fills(self) -> Mapping[str, float]:
        """Weight sets beside `slow`, each with the value that all its entries start from."""
        return {}

    @abstractmethod
    def _update(self, columns: Columns) -> Mapping[str, float]:
        """Move `self.point.weights` by one chunk and return measures."""

    def predict(self, x: Array, *, about: About = "auto") -> Array:
        """See `protocols.Learner`."""
        width = self.point.active.width
        return self._logits(self._served(about), torch.tensor(x, dtype=torch.float32), self.point.active.overall)[:, :width]

    def answer(self, x: Array) -> Answer:
        """See `protocols.Learner`."""
        return Answer(self.predict(x), no_evidence(len(x)))

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`."""
        check_chunks(len(batch), self.chunk)
        check_labels(batch.labels.tolist(), self.task.max_labels)
        turns = [self._turn(batch[start : start + self.chunk]) for start in range(0, len(batch), self.chunk)]
        return LearnReport(
            logits=joined_logits([turn.logits for turn in turns]),
            rejected=np.repeat(np.array([turn.rejected for turn in turns], bool), self.chunk),
            measures=mean_measures([turn.measures for turn in turns]) | self._standing_measures(),
        )

    def _turn(self, batch: Batch) -> Turn:
        columns = self._columns(batch)
        logits = self._answer(columns, batch)
        before = self.point
        self._admit(batch)
        measures = self._update(columns)
        rejected = not self._holds_numbers()
        if rejected:
            self._take_back(before)
            measures = {}
        else:
            self._remember(columns)
            measures = measures if "update_norm" in measures else {**measures, "update_norm": self._distance(before)}
        self._early = None
        return Turn(logits, rejected, measures)

    def _holds_numbers(self) -> bool:
        """Whether the update was finite."""
        return all(is_finite(weights) for weights in self.point.weights.values())

    def _answer(self, columns: Columns, batch: Batch) -> Array:
        active = self.point.active
        return self._logits(self._served("now"), columns["x"], active.mask(batch.contexts.tolist()))[:, : active.width]

    def _admit(self, batch: Batch) -> None:
        labels = batch.labels.tolist()
        capacity = capacity_for(max(labels) + 1)
        self.point = Point(
            {name: self.grown(name, weights, capacity) for name, weights in self.point.weights.items()},
            self.point.active.grown(capacity).admitted(labels, batch.contexts.tolist()),
            self.point.inputs.learned(batch.x),
        )

    def grown(self, name: str, weights: Params, capacity: int) -> Params:
        """This weight set with `capacity` head rows: old rows bit for bit, new ones as if they had been there before."""
        grown = self.network.grown(weights, capacity)
        fill = self._fills().get(name)
        if fill is None or grown is weights:
            return grown
        old = len(weights["head.bias"])
        for part in ("head.weight", "head.bias"):
            grown[part][old:] = fill
        return grown

    def _take_back(self, before: Point) -> None:
        self.point = before
        if self._early is not None and self.memory is not None:
            self.memory.undo(self._early)

    # The memory.

    _early: Undo | None = None

    def _new_memory(self) -> Reservoir:
        example = Batch.of(np.zeros((1, *self.task.shape), np.float32), np.zeros(1, np.int64))
        columns = {name: column[0] for name, column in self._columns(example).items()}
        return Reservoir(columns, self._memory_settings.rows, torch.Generator().manual_seed(mixed_seed(self.task.seed, 3)))

    def _columns(self, batch: Batch) -> Columns:
        """Copies of a batch's rows, as memory keeps them."""
        return {
            "x": torch.tensor(batch.x, dtype=torch.float32, device=self.task.device),
            "label": torch.tensor(batch.labels, device=self.task.device),
            "context": torch.tensor(batch.contexts),
            "id": torch.tensor(batch.ids.view(np.int64)),
            "time_ms": torch.tensor(batch.times_ms),
            "partition": torch.tensor(batch.partitions),
            "at": torch.tensor(batch.at),
        }

    def _remember(self, columns: Columns) -> None:
        """Offer a chunk to the memory, unless that was done early."""
        if self.memory is not None and self._early is None:
            self.memory.offer(columns, accept_reference=self._memory_settings.accept_reference)

    def _remember_early(self, columns: Columns) -> None:
        """After a glance: offer now where settings ask for it, to be undone should the chunk be rejected."""
        if self.memory is not None and self._early is None and self._memory_settings.offer_early:
            self._early = self.memory.offer(columns, accept_reference=self._memory_settings.accept_reference)

    def _replayed(self, count: int) -> Rows | None:
        """Up to `count` remembered rows; None while there are none."""
        columns = self._recalled(count)
        return self._rows(columns) if len(columns["label"]) else None

    def _recalled(self, count: int) -> Columns:
        """Up to `count` remembered rows, untransformed, by what learning needs of them."""
        memory = self._reservoir
        slots = memory.draw(count, with_replacement=self._memory_settings.with_replacement)
        return memory.take(slots, ("x", "label", "context"))

    @property
    def _reservoir(self) -> Reservoir:
        if self.memory is None:
            raise ValueError(f"{type(self).__name__} remembers nothing: expected `memory` in its constructor")
        return self.memory

    # The network.

    def _rows(self, columns: Columns) -> Rows:
        mask = self.point.active.mask(columns["context"].tolist())
        return Rows(self._transformed(columns["x"]), columns["label"], mask)

    def _transformed(self, x: Tensor) -> Tensor:
        inputs = self.point.inputs
        if isinstance(inputs, NamedInputs):
            x = torch.from_numpy(inputs.apply(x.cpu().numpy())).to(x)
        elif not inputs.is_identity:
            shift, gain = (torch.from_numpy(a).to(x) for a in (inputs.shift, inputs.gain))
            x = (x - shift) * gain
            x = x if inputs.clip is None else x.clamp(-inputs.clip, inputs.clip)
        return x.to(self._dtype)

    def _inputs_of(self, columns: Columns) -> Array:
        """The same on the host, as compiled forms take them."""
        return self.point.inputs.apply(columns["x"].numpy())

    def _loss(self, params: Params, rows: Rows) -> Tensor:
        return masked_cross_entropy(self.network.logits(params, rows.x), rows)

    def _served(self, about: About) -> Params:  # noqa: ARG002 one set of weights answers all questions, until a learner has two
        """The weights that answer."""
        return self.point.weights["slow"]

    def _logits(self, params: Params, x: Tensor, mask: Tensor) -> Array:
        with torch.no_grad():
            logits = self.network.logits(params, self._transformed(x.to(self.task.device)))
            masked: Array = logits.masked_fill(~mask, -torch.inf).float().cpu().numpy()
        return masked

    def _distance(self, before: Point) -> float:
        new = self.point.weights["slow"]
        old = self.grown("slow", before.weights["slow"], len(new["head.bias"]))
        return float(global_norm({name: p - old[name] for name, p in new.items()}))

    def hasten(self, factor: float) -> bool:
        """See `protocols.Hastened`."""
        if self.moves_by_rates and factor != 1.0:
            rates = {name: factor * rate for name, rate in self.point.weights["rates"].items()}
            self.point = self.point._replace(weights={**self.point.weights, "rates": rates})
        return self.moves_by_rates

    def _standing_measures(self) -> dict[str, float]:
        """What can be said of the weights after this call."""
        return {}

    # State.

    def state(self) -> State:
        """See `protocols.Learner`."""
        parts = {name: _saved(weights) for name, weights in self.point.weights.items()}
        parts |= {"active": self.point.active.state(), "inputs": self.point.inputs.state()}
        parts |= {"kernel": State(values={"name": self.kernel}), "start": self.task.state()}
        parts["random"] = State({"permutations": self.generator.get_state().numpy().copy()})
        if self.memory is not None:
            parts["memory"] = self.memory.state()
        return State.nest(parts)

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        self._check_kernel(state.under("kernel").values.get("name"))
        self.task.check(state.under("start"))
        weights = {name: self._restored(name, state.under(name)) for name in self.point.weights}
        active, inputs = self.point.active.restored(state.under("active")), self.point.inputs.restored(state.under("inputs"))
        if self.memory is not None:
            self.memory.restore(state.under("memory"))
        self.generator.set_state(torch.from_numpy(state.arrays["random/permutations"].copy()))
        self.point = Point(weights, active, inputs)

    def _check_kernel(self, kept: Json) -> None:
        if kept != self.kernel and not self.allow_kernel_change:
            raise CheckpointError(
                f"checkpoint was learned by the kernel {kept!r}, this learner uses {self.kernel!r}: from here on bits would "
                "differ; set learner.kernel to what it was, or learner.allow_kernel_change to true"
            )

    def _restored(self, name: str, state: State) -> Params:
        ours = self.point.weights[name]
        for part, tensor in ours.items():
            kept = state.arrays.get(part)
            expected = tuple(tensor.shape[1:] if part.startswith("head.") else tensor.shape)
            found = None if kept is None else (kept.shape[1:] if part.startswith("head.") else kept.shape)
            if kept is None or found != expected or str(kept.dtype) != self.task.dtype:
                what = "nothing" if kept is None else f"{kept.dtype} {kept.shape}"
                raise CheckpointError(
                    f"checkpoint holds {what} for {name} '{part}': expected {self.task.dtype} {tuple(tensor.shape)}; "
                    "keep the configured model, or start from an empty state"
                )
        return {part: torch.tensor(state.arrays[part], device=self.task.device) for part in ours}

    def answering(self) -> Answering:
        """See `protocols.Learner`."""
        width = self.point.active.width
        arrays = self._published(self._served("auto"), width)
        if self._served("ever") is not self._served("auto"):
            arrays |= {f"ever/{name}": array for name, array in self._published(self._served("ever"), width).items()}
        arrays["active"] = self.point.active.lines[0, :width].numpy().astype(np.uint8)
        settings = {"model": self.task.model.model_dump(mode="json"), "shape": list(self.point.inputs.shape)}
        form = "mlp" if isinstance(self.network.body, MLP) else "torch"
        return Answering(form, arrays | self.point.inputs.arrays(), settings | self.point.inputs.values())

    def _published(self, weights: Params, width: int) -> dict[str, Array]:
        whole = {**self.network.fixed, **weights}
        arrays: dict[str, Array] = {name: p.detach().float().cpu().numpy().copy() for name, p in whole.items()}
        return arrays | {part: arrays[part][:width] for part in ("head.weight", "head.bias")}

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return {} if self.memory is None else self.memory.labels()

    def context_labels(self, context: int) -> list[int]:
        """Label rows met in this context, for those who ask with task identity."""
        line = self.point.active.mask([context])[0]
        return torch.nonzero(line).flatten().tolist()


def inputs_of(task: Task) -> Inputs | NamedInputs:
    """What a network is shown of this task's rows, before anything was learned."""
    return Inputs.fresh(task.inputs, task.shape) if task.schema is None else NamedInputs.fresh(task.inputs, task.schema)


def fan_in_of(task: Task, inputs: Inputs | NamedInputs) -> int | None:
    """What a network's first weights are drawn for, where that is not the number of inputs."""
    return inputs.layout.features if isinstance(inputs, NamedInputs) else task.fan_in


def joined_logits(parts: list[Array]) -> Array:
    """Logits of successive chunks below each other; −inf where a label came later."""
    if not parts:
        return np.zeros((0, 0), np.float32)
    width = parts[-1].shape[1]
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=-np.inf) for p in parts])


def mean_measures(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """By name, the mean of what was measured; NaN where nothing was."""
    names = {name: None for part in parts for name in part}
    kept = {name: [p[name] for p in parts if name in p and not np.isnan(p[name])] for name in names}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in kept.items()}


def _filled(like: Params, value: float) -> Params:
    return {name: torch.full_like(p, value) for name, p in like.items()}


def _saved(weights: Params) -> State:
    return State({name: p.detach().cpu().numpy().copy() for name, p in weights.items()})
