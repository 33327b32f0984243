"""Omniglot's characters, in which order a stream shows them, and what a trunk makes of them."""

import os
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.func import functional_call

from benchmarks.images import FOLDER, Images
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.models.classifier import ModelSettings, build
from streamlearn.models.gated import Gated
from streamlearn.records import Array, Initialisation, Json

NEIGHBOURS = 5
ACTIVE = 0.01  # of the largest activation that the trunk has on any of the images
AT_ONCE = 250


class Stream(NamedTuple):
    """Characters in the order in which they are taught, and which of their drawings are taught and asked."""

    taught: Array  # [characters, drawings], rows
    asked: Array

    def first(self, characters: int) -> "Stream":
        """The beginning of it."""
        return Stream(self.taught[:characters], self.asked[:characters])


def path() -> Path:
    """Of the file, in the folder that STREAMLEARN_DATA names."""
    return Path(os.environ[FOLDER]) / "omniglot28.npz"


def characters() -> Images:
    """Background characters for training, evaluation characters for tests, 20 drawings each."""
    with np.load(path(), allow_pickle=False) as file:
        return Images("Omniglot", file["x_train"], file["y_train"], file["x_test"], file["y_test"])


def stream(by_class: list[Array], *, characters: int, taught: int, asked: int, seed: int) -> Stream:
    """Characters in random order, and of each some of its rows in random order."""
    random = np.random.default_rng([seed, 6])
    chosen = random.permutation(len(by_class))[:characters]
    rows = np.stack([random.permutation(by_class[c])[: taught + asked] for c in chosen])
    return Stream(rows[:, :taught], rows[:, taught:])


def rows_by_class(y: Array) -> list[Array]:
    """Rows of each label."""
    return [np.flatnonzero(y == label) for label in np.unique(y)]


def features(start: Initialisation, x: Array, *, device: str, gated: bool = True) -> Array:
    """float32 [n, features] of images; without `gated`, the trunk's own, before a gate closes them."""
    network = build(ModelSettings(**start.model), start.shape, seed=start.seed, start=start)
    params = network.initial(0, torch.float32, device)
    inputs = Inputs.fresh(InputSettings(**start.inputs), start.shape)
    trunk = {n.removeprefix("body.trunk."): p for n, p in {**params, **network.fixed}.items() if n.startswith("body.trunk.")}
    found = []
    with torch.no_grad():
        for first in range(0, len(x), AT_ONCE):
            shown = torch.from_numpy(inputs.apply(x[first : first + AT_ONCE].astype(np.float32))).to(device)
            if isinstance(network.body, Gated) and not gated:
                made = cast(Tensor, functional_call(network.body.trunk, trunk, (shown,)))
            else:
                made = network.features(params, shown)
            found.append(made.float().cpu().numpy())
    return np.concatenate(found)


def said_of(made: Array, shown: Stream) -> dict[str, Json]:
    """Of features [n, units], by image of the stream: how sparse they are, and how well neighbours among them agree.

    A unit is active on an image above a hundredth of the largest activation of all. Active overall: its mean over images is.
    Dead: active on none.
    """
    own = made[np.concatenate([shown.taught, shown.asked], 1).reshape(-1)]
    active = own > ACTIVE * own.max()
    labels = [np.repeat(np.arange(len(rows)), rows.shape[1]) for rows in shown]
    near = KNeighborsClassifier(NEIGHBOURS).fit(made[shown.taught.reshape(-1)], labels[0])
    return {
        "active": 100 * float(active.mean()),
        "active_overall": 100 * float((own.mean(0) > ACTIVE * own.max()).mean()),
        "dead": 100 * float((~active.any(0)).mean()),
        "neighbours": 100 * float((near.predict(made[shown.asked.reshape(-1)]) == labels[1]).mean()),
    }
