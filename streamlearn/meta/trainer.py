"""Meta-training, one step at a time: draw episodes, make the meta-gradient, move, and keep what validated best."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from streamlearn.adapt.adam import Moments, adam, still
from streamlearn.adapt.implicit import Proximal
from streamlearn.adapt.params import Params, clipped, is_finite, moved
from streamlearn.adapt.unrolled import Lessons, Plan
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.meta import validation
from streamlearn.meta.algorithms import ALGORITHMS, check_size, trajectory
from streamlearn.meta.corpus import Corpus, Episodes
from streamlearn.meta.kernels import KERNELS, LOG_DURATION, Loops
from streamlearn.meta.partition import TRUNK, parts
from streamlearn.meta.settings import MetaSettings
from streamlearn.models.classifier import ModelSettings, build, head_row, mixed_seed
from streamlearn.models.gated import Gated
from streamlearn.records import Initialisation, Json, MetaReport, State


class Trainer:
    """Implements `protocols.MetaTrainer`. What step t draws is a function of (seed, t): nothing random is kept."""

    def __init__(
        self,
        settings: MetaSettings,
        corpus: Corpus,
        *,
        shape: tuple[int, ...],
        model: ModelSettings,
        inputs: InputSettings,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings, self.algorithm, self.seed, self.steps = settings, ALGORITHMS[settings.algorithm], seed, 0
        self._made_for: dict[str, Json] = {"model": model.model_dump(mode="json"), "inputs": inputs.model_dump(mode="json")}
        self._shape, self._device, self._dtype, self._corpus = shape, device, dtype, corpus
        self.network = build(model, shape, seed=seed)
        if inputs.kind == "standardise":
            raise ConfigError("input.transform.kind is 'standardise': expected none or scale, a warm start has no running mean")
        if self.algorithm.moves == TRUNK and not isinstance(self.network.body, Gated):
            raise ConfigError(f"meta.algorithm is 'anml', but model.name is '{model.name}': expected gated")
        check_size(settings, corpus)
        self._episodes = Episodes(corpus, Inputs.fresh(inputs, shape), dtype, device)
        self._path = trajectory(settings)
        self._sequential = self.algorithm.episodes != "few-shot"  # one head for all classes; then learned one after another
        ways = None if self._sequential else settings.ways
        self.loops = Loops(
            parts(self.network, self.algorithm.moves, shape=shape, ways=ways),
            self._plan(),
            self.order or 0,
            settings.batched,
            Proximal(settings.proximal, settings.inner_lr, settings.inner_steps, settings.cg_steps, settings.tolerance),
            settings.tolerance,
        )
        self.judging = self._judging()
        self.params = self._first()
        self._moments = still(self.params)
        self._best: Params = self.params
        self._best_measures: dict[str, float] = {}
        self._best_steps = 0

    @property
    def order(self) -> int | None:
        """Of the meta-gradient; None where the algorithm has none."""
        own = self.algorithm.order
        return own if own is None or self.settings.order is None or self.settings.algorithm == "fomaml" else self.settings.order

    def _plan(self) -> Plan:
        """Row by row along a trajectory; of a few-shot episode the whole support or parts in turn; nothing of a batch."""
        if self.algorithm.episodes == "batch":
            return Plan(self.settings.inner_lr, ())
        if self._sequential:
            rows = self._path.classes * self._path.drawings
            return Plan(self.settings.inner_lr, tuple(slice(row, row + 1) for row in range(rows)))
        own = self.settings
        turns = math.ceil((own.train_shots or own.shots) / own.inner_shots) if own.inner_shots else 1
        return Plan(own.inner_lr, tuple(slice(step % turns, None, turns) for step in range(own.inner_steps)))

    def _judging(self) -> Loops:
        """Those of a validation: on the whole support, for as many steps as the settings say."""
        if self._sequential:
            return self.loops
        steps = self.settings.validation_steps or self.settings.inner_steps
        plan = Plan(self.settings.inner_lr, (slice(None),) * steps)
        return replace(self.loops, plan=plan, proximal=self.loops.proximal._replace(steps=steps))

    def _first(self) -> Params:
        capacity = len(self._corpus.train) if self._sequential else 0
        params = self.network.initial(capacity, self._dtype, self._device)
        if not self._sequential:
            params = {name: p for name, p in params.items() if not name.startswith("head.")}
        if self.algorithm.kernel == "flow":
            params[LOG_DURATION] = torch.tensor(math.log(self.settings.duration), dtype=self._dtype, device=self._device)
        return params

    def step(self) -> MetaReport:
        """See `protocols.MetaTrainer`."""
        lessons = self._drawn(np.random.default_rng(mixed_seed(self.seed, 11, self.steps)))
        made = KERNELS[self.algorithm.kernel](self.params, lessons, self.loops)
        finite = is_finite(made.grads)
        if finite:
            self._move(made.grads)
        self.steps += 1
        return MetaReport(made.loss, rejected=not finite, measures=made.measures)

    def _drawn(self, random: np.random.Generator) -> Lessons:
        own, count = self.settings, self.settings.meta_batch or self.algorithm.meta_batch
        if not self._sequential:
            shots = own.train_shots or own.shots
            return self._episodes.few_shot(random, count, ways=own.ways, shots=shots, queries=own.queries, held_out=False)
        if self.algorithm.episodes == "batch":
            return self._episodes.batch(random, own.batch)
        path = self._path
        lessons, met = self._episodes.trajectories(
            random, count, classes=path.classes, shots=path.drawings, remember=path.remember, others=path.further
        )
        self._redraw(range(len(self._corpus.train)) if not own.meta_head else met)
        return lessons

    def _redraw(self, rows: "range | list[int]") -> None:
        """Head rows begin anew, so that the outer loop cannot learn classes by heart; biases stay, as in the released code."""
        weight = self.params["head.weight"].clone()
        for row in rows:
            weight[row] = head_row(mixed_seed(self.seed, 12, self.steps), row, self.network.width).to(weight)
        self.params = {**self.params, "head.weight": weight}

    def _move(self, grads: Params) -> None:
        own = self.settings
        rate = (own.outer_lr or self.algorithm.outer_lr) * self._cooled()
        if self.algorithm.kernel == "interpolate":
            self.params = moved(self.params, grads, rate)
            return
        grads = grads if own.clip_norm is None else clipped(grads, own.clip_norm)
        params, self._moments = adam(self.params, grads, self._moments, rate)
        still_there = {} if own.meta_head else {n: p for n, p in self.params.items() if n.startswith("head.")}
        self.params = {**params, **still_there}

    def _cooled(self) -> float:
        """What is left of the outer step size: all, until the last steps, in which it falls to 0 along a line."""
        share = 1.0 if self.algorithm.kernel == "interpolate" else self.settings.cooldown
        left = 1 - self.steps / self.settings.steps
        return min(1.0, left / share) if share else 1.0

    def validate(self) -> Mapping[str, float]:
        """See `protocols.MetaTrainer`."""
        own, random = self.settings, np.random.default_rng(mixed_seed(self.seed, 13))
        if self._sequential:
            found = validation.in_sequence(
                self.network,
                self.params,
                self._episodes,
                random,
                classes=own.validation_classes,
                shots=own.validation_shots,
                rates=own.rates,
            )
        else:
            lessons = self._episodes.few_shot(
                random, own.validation_episodes, ways=own.ways, shots=own.shots, queries=own.queries, held_out=True
            )
            found = validation.few_shot(self.network, self.algorithm.kernel, self.params, lessons, self.judging)
        judged = "nearest_mean" if self.algorithm.episodes == "batch" else "accuracy"  # what it is made for is no sgd
        if found[judged] >= self._best_measures.get(judged, -1.0):
            self._best, self._best_measures, self._best_steps = self.params, dict(found), self.steps
        return found

    def initialisation(self) -> Initialisation:
        """See `protocols.MetaTrainer`."""
        params, own = self._best, self.settings
        body = {n: p.detach().float().cpu().numpy().copy() for n, p in params.items() if n.startswith("body.")}
        head_only = self._sequential and own.plastic == "head"
        return Initialisation(
            algorithm=own.algorithm,
            order=self.order,
            model=self._made_for["model"],
            shape=self._shape,
            inputs=self._made_for["inputs"],
            arrays=body,
            plastic=() if head_only else tuple(sorted(n for n in body if n.startswith(self.algorithm.moves))),
            head="drawn" if self._sequential else "zero",
            learning_rate=self._best_measures.get("learning_rate", own.inner_lr),
            duration=float(params[LOG_DURATION].exp()) if LOG_DURATION in params else None,
            split=self._corpus.fingerprint,
            seed=self.seed,
            steps=self._best_steps,
            measures=dict(self._best_measures),
        )

    def state(self) -> State:
        """See `protocols.MetaTrainer`."""
        named = {"params": self.params, "best": self._best, "mean": self._moments.mean, "square": self._moments.square}
        arrays = {f"{part}/{n}": p.detach().cpu().numpy().copy() for part, params in named.items() for n, p in params.items()}
        values = {
            "steps": self.steps,
            "moments": self._moments.steps,
            "measures": self._best_measures,
            "best": self._best_steps,
        }
        return State(arrays, {**values, "made_by": self._identity()})

    def _identity(self) -> dict[str, Json]:
        """What a resumed run must agree on: everything but for how long it runs."""
        return {
            "settings": _kept(self.settings),
            **self._made_for,
            "shape": list(self._shape),
            "seed": self.seed,
            "split": self._corpus.fingerprint,
            "views": self._corpus.views.model_dump(mode="json"),
        }

    def restore(self, state: State) -> None:
        """See `protocols.MetaTrainer`."""
        made_by = dict(state.values["made_by"])
        made_by["settings"] = _kept(MetaSettings(algorithm=self.settings.algorithm)) | made_by["settings"]  # of fewer keys once
        for name, ours in self._identity().items():
            kept = made_by.get(name)
            if kept != ours:
                raise CheckpointError(
                    f"meta-training was begun with {name} {kept}, the configuration says {ours}: expected the same"
                )
        part = {name: self._params_under(state, name) for name in ("params", "best", "mean", "square")}
        self.params, self._best = part["params"], part["best"]
        self._moments = Moments(part["mean"], part["square"], state.values["moments"])
        self.steps, self._best_steps = state.values["steps"], state.values["best"]
        self._best_measures = dict(state.values["measures"])

    def _params_under(self, state: State, name: str) -> Params:
        return {n: torch.tensor(state.arrays[f"{name}/{n}"], device=self._device) for n in self.params}


def _kept(settings: MetaSettings) -> dict[str, Json]:
    return settings.model_dump(mode="json", exclude={"steps", "validate_every"})
