"""Config → the learner that it names, and what every learner is told beside its own settings."""

import difflib
from importlib import import_module
from pathlib import Path

import torch

from streamlearn.config import Config
from streamlearn.errors import ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.meta import warm_start
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Initialisation
from streamlearn.settings import read

AUTO = "auto"
"""The name that leaves the choice to `learner_name`."""


def learner(config: Config) -> Learner:
    """The configured learner, fresh. Errors: ConfigError for an unknown name or key, or a model that cannot be made."""
    path = LEARNERS.get(learner_name(config))
    if path is None:
        known = [AUTO, *LEARNERS]
        near = difflib.get_close_matches(config.learner.name, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"learner.name '{config.learner.name}' is not known: {hint}")
    module, _, name = path.partition(":")
    kind = getattr(import_module(module), name)
    settings = read(kind.Settings, config.learner.rest, path="learner")
    try:
        made: Learner = kind(settings, task(config))
    except ValueError as error:  # settings that are right one by one, and do not go together
        raise ConfigError(f"learner: {error}") from error
    return made


def learner_name(config: Config) -> str:
    """The learner by name; `auto` is the pool, but not for what it has no place for: an own network, a warm start, a GPU."""
    if config.learner.name != AUTO:
        return config.learner.name
    alone = config.model.name == "mlp" and config.warm_start is None and device(config.device) == "cpu"
    return "pool" if alone else "la-maml"


def task(config: Config) -> Task:
    """What every learner is told beside its own settings. Errors: ConfigError, also for a warm start that does not fit."""
    given = config.model.rest | ({} if config.model.name == "module" else {"name": config.model.name})
    model = read(ModelSettings, given, path="model")
    start = None if config.warm_start is None else _warm_start(config, config.warm_start, model)
    return Task(
        shape=config.input.row,
        schema=config.input.named,
        max_labels=config.label.max_labels,
        known=len(config.label.known),
        seed=config.seed,
        model=model if start is None else ModelSettings(**start.model),
        inputs=config.input.transform if start is None else InputSettings(**start.inputs),
        device=device(config.device),
        start=start,
    )


def _warm_start(config: Config, path: Path, model: ModelSettings) -> Initialisation:
    if config.input.columns:
        raise ConfigError("warm_start is given beside input.columns: expected input.shape, a warm start is made for arrays")
    start = warm_start.load(path)
    said = set(config.model.rest) | (config.model.model_fields_set & {"name"} if not model.module else set())
    keys = model.model_dump(mode="json", include=said | {"module"})  # which code is imported, the configuration alone says
    inputs = config.input.transform.model_dump(mode="json", exclude_unset=True)
    warm_start.check_fits(start, shape=config.input.shape, model=keys, inputs=inputs)
    return start


def device(name: str) -> str:
    """`auto` resolved. Errors: ConfigError when the device is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ConfigError(f"device is '{name}': expected cpu, cuda, cuda:N or auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but torch finds no CUDA device: expected cpu or auto here")
    return name
