"""Trunks for the characters' stream: drawn at random, trained with supervision, or meta-trained by the product's command."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.images import Images
from benchmarks.omniglot_data import path
from benchmarks.omniglot_plan import BATCH, Meta, Width
from streamlearn.adapt.adam import adam, still
from streamlearn.config import InputKeys, MetaConfig, ModelKeys
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.meta import warm_start
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.settings import CorpusSettings, MetaSettings
from streamlearn.meta_train import meta_train
from streamlearn.models.classifier import ModelSettings, build
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


def trunk(source: Images, name: str, width: Width, *, seed: int, folder: Path, device: str) -> Made:
    """From a file in `folder` where it is there, else made and put there. Errors: SystemExit when it was interrupted."""
    file, began = folder / f"{name}-{seed}.safetensors", time.process_time()
    if name in ("random", "supervised"):
        if not file.is_file():
            steps = width.trained[name].steps if name == "supervised" else 0
            warm_start.save(_supervised(source, width, steps, seed=seed, device=device), file)
    else:
        found = meta_train(_config(name, width, seed=seed, folder=folder, file=file, device=device), progress=True)
        if found["steps"] < width.trained[name].steps:
            raise SystemExit(f"{name}, seed {seed}: stopped after {found['steps']} meta-steps; the same command goes on")
    return Made(warm_start.load(file), time.process_time() - began)


def _config(name: str, width: Width, *, seed: int, folder: Path, file: Path, device: str) -> MetaConfig:
    algorithm, _, order = name.partition("-")
    plan: Meta = width.trained[name]
    return MetaConfig(
        seed=seed,
        device=device,
        state_dir=folder / f"{name}-{seed}",
        warm_start=file,
        input=InputKeys(shape=width.shape, transform=INPUTS),
        model=ModelKeys(**_model(width, gated=algorithm == "anml").model_dump(exclude_unset=True)),
        corpus=CorpusSettings(path=path(), x="x_train", y="y_train", held_out=HELD_OUT),
        meta=MetaSettings(algorithm=algorithm, order=int(order or 2), steps=plan.steps, **plan.settings),
    )


def _model(width: Width, *, gated: bool) -> ModelSettings:
    own = {"gate_channels": width.gate_channels} if gated else {}
    return ModelSettings(name="gated" if gated else "split", channels=width.channels, layout=width.layout, **own)


def _supervised(source: Images, width: Width, steps: int, *, seed: int, device: str) -> Initialisation:
    """Images of all training characters in random batches, one softmax over all, Adam at 0.001; no step: as drawn."""
    own, model = corpus(source, seed), _model(width, gated=False)
    network, shown = build(model, width.shape, seed=seed), Inputs.fresh(INPUTS, width.shape)
    params = network.initial(len(own.train), torch.float32, device)
    rows, labels = np.concatenate(own.train), np.repeat(np.arange(len(own.train)), [len(c) for c in own.train])
    random, moments = np.random.default_rng([seed, 7]), still(params)
    for _ in range(steps):
        chosen = random.integers(0, len(rows), BATCH)
        x = torch.from_numpy(shown.apply(source.x_train[rows[chosen]].astype(np.float32))).to(device)
        y = torch.from_numpy(labels[chosen]).to(device)
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        loss = torch.nn.functional.cross_entropy(network.logits(leaves, x), y)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        params, moments = adam(params, grads, moments, 1e-3)
    return Initialisation(
        algorithm="supervised" if steps else "random",
        order=None,
        model=model.model_dump(mode="json"),
        shape=width.shape,
        inputs=INPUTS.model_dump(mode="json"),
        arrays={n: p.detach().cpu().numpy() for n, p in params.items() if n.startswith("body.")},
        plastic=(),
        head="drawn",
        learning_rate=0.03,
        split=own.fingerprint,
        seed=seed,
        steps=steps,
    )
