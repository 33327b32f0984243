"""Trunks for the characters' stream: drawn at random, or made by the product's `meta-train`."""

import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.images import Images
from benchmarks.omniglot_data import path
from benchmarks.omniglot_plan import Meta, Width
from streamlearn.config import InputKeys, MetaConfig, ModelKeys
from streamlearn.inputs import InputSettings
from streamlearn.meta import warm_start
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.settings import CorpusSettings, MetaSettings
from streamlearn.meta_train import meta_train, trainer
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Initialisation

HELD_OUT = 0.1  # of the background characters
INPUTS = InputSettings(kind="scale", factor=1 / 255)


class Made(NamedTuple):
    """A trunk and what it took; seconds of this process, so less than all where it went on from an earlier one."""

    start: Initialisation
    cpu_s: float


def corpus(source: Images, seed: int) -> Corpus:
    """The background characters, some of them held out, as `meta-train` divides them."""
    return Corpus.of(source.x_train, source.y_train, held_out=HELD_OUT, seed=seed)


def trunk(name: str, width: Width, *, seed: int, folder: Path, device: str) -> Made:
    """From a file in `folder` where it is there, else made and put there. Errors: SystemExit when it was interrupted."""
    file, began = folder / f"{name}-{seed}.safetensors", time.process_time()
    config = _config(name, width, seed=seed, folder=folder, file=file, device=device)
    if name == "random":
        warm_start.save(trainer(config).initialisation(), file)
    else:
        found = meta_train(config, progress=True)
        if found["steps"] < width.trained[name].steps:
            raise SystemExit(f"{name}, seed {seed}: stopped after {found['steps']} meta-steps; the same command goes on")
    return Made(warm_start.load(file), time.process_time() - began)


def _config(name: str, width: Width, *, seed: int, folder: Path, file: Path, device: str) -> MetaConfig:
    algorithm, _, way = name.replace("random", "supervised").partition("-")  # of which no step is taken
    plan = width.trained[name] if name != "random" else Meta(1)
    return MetaConfig(
        seed=seed,
        device=device,
        state_dir=folder / f"{name}-{seed}",
        warm_start=file,
        input=InputKeys(shape=width.shape, transform=INPUTS),
        model=ModelKeys(**_model(width, gated=algorithm == "anml").model_dump(exclude_unset=True)),
        corpus=CorpusSettings(path=path(), x="x_train", y="y_train", held_out=HELD_OUT, views=plan.views),
        meta=MetaSettings(algorithm=algorithm, order=int(way) if way.isdigit() else 2, steps=plan.steps, **plan.settings),
    )


def _model(width: Width, *, gated: bool) -> ModelSettings:
    own = {"gate_channels": width.gate_channels} if gated else {}
    return ModelSettings(name="gated" if gated else "split", channels=width.channels, layout=width.layout, **own)
