"""`streamlearn meta-train`: a labelled corpus → a warm start. Run in the main thread of a process of its own."""

import signal
import sys
import time
from typing import Any

import torch
import typer

from streamlearn import configured_learner
from streamlearn.checkpoint import Checkpoint, Checkpoints
from streamlearn.config import MetaConfig
from streamlearn.errors import ConfigError
from streamlearn.meta import warm_start
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.settings import MetaSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.models.classifier import ModelSettings
from streamlearn.ownership import Ownership
from streamlearn.protocols import MetaTrainer
from streamlearn.records import Json, State
from streamlearn.settings import read


def meta_train(config: MetaConfig, *, progress: bool) -> dict[str, Json]:
    """To the last step or a signal, going on where it was; each validation saves. Returns what was made.

    Errors  ConfigError; CheckpointError when the state directory belongs to another run or is in use.
    """
    torch.set_num_threads(1)
    made = trainer(config)
    store, owned = Checkpoints(config.state_dir / "meta", keep=2), Ownership(config.state_dir)
    try:
        if (kept := store.newest()) is not None:
            made.restore(kept[0].state.under("trainer"))
        _train(config.meta, made, store, progress=progress)
    finally:
        owned.release()
    start = made.initialisation()
    warm_start.save(start, config.warm_start)
    return {
        "algorithm": start.algorithm if start.order is None else f"{start.algorithm}, order {start.order}",
        "steps": made.steps,
        "best_after": start.steps,
        **{f"held_out_{name}": value for name, value in start.measures.items()},
        "plastic": list(start.plastic) or "the head alone",
        "warm_start": str(config.warm_start),
        "fingerprint": start.fingerprint,
    }


def trainer(config: MetaConfig) -> Trainer:
    """The configured trainer, fresh. Errors: ConfigError."""
    if config.input.columns:
        raise ConfigError("input.columns is given: expected input.shape, the corpus of meta-train holds arrays")
    model = config.model.rest | ({} if config.model.name == "module" else {"name": config.model.name})
    return Trainer(
        config.meta,
        Corpus.load(config.corpus, shape=config.input.shape, seed=config.seed),
        shape=config.input.shape,
        model=read(ModelSettings, model, path="model"),
        inputs=config.input.transform,
        seed=config.seed,
        device=configured_learner.device(config.device),
    )


def _train(own: MetaSettings, made: MetaTrainer, store: Checkpoints, *, progress: bool) -> None:
    stop = Stop()
    with stop, typer.progressbar(length=own.steps, file=sys.stderr, hidden=not progress, label=own.algorithm) as bar:
        bar.update(made.steps)
        while made.steps < own.steps and not stop.asked:
            made.step()
            bar.update(1)
            due = made.steps % own.validate_every == 0 or made.steps == own.steps
            if due:
                made.validate()
            if due or stop.asked:
                state = State.nest({"trainer": made.state()})
                kept = Checkpoint(number=made.steps, state=state, positions={}, journal={})
                store.save(store.next_name(), kept, created_ms=time.time_ns() // 1_000_000)


class Stop:
    """While it is entered, the first SIGINT or SIGTERM is only noted; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.asked = True
        signal.signal(number, self._before[number])
