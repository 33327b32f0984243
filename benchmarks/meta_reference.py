"""The released meta-learners of ANML and OML, out of checkouts that the user points to: nothing of them is kept here.

Source  github.com/uvm-neurobotics-lab/ANML, read at commit cabaaf7; github.com/khurramjaved96/mrcl, at 2855a6b.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import Lessons

OWNED = ("model", "oml", "datasets", "utils")  # names that both checkouts give to packages of their own
ANML_GATE = 14  # parameters that their inner loop leaves alone: the gate's come first


class Reference:
    """One of their learners: a meta-step on given episodes, and where its weights are in ours."""

    def __init__(self, checkout: Path, kind: str, *, channels: int, inner_lr: float, outer_lr: float) -> None:
        """Errors: FileNotFoundError when there is no checkout; ValueError for an ANML of another width, which it writes out."""
        if not (checkout / "model" / "meta_learner.py").is_file():
            raise FileNotFoundError(f"no model/meta_learner.py in {checkout}: expected a checkout of the authors' code")
        if kind == "anml" and channels != 256:
            raise ValueError(f"the released ANML with {channels} channels: expected 256, it writes its sizes out")
        with _packages_of(checkout):
            learner, factory = (importlib.import_module(f"model.{name}") for name in ("meta_learner", "modelfactory"))
        self._maml = (_anml if kind == "anml" else _oml)(learner, factory, channels, inner_lr, outer_lr)
        self._names = list(_names(kind))

    def params(self) -> Params:
        """Copies of its weights, under our names."""
        return {name: p.detach().clone() for name, p in zip(self._names, self._maml.net.parameters(), strict=True)}

    def step(self, lessons: Lessons) -> float:
        """One meta-step on the one episode that is given; its meta-loss."""
        support, query = lessons.support_x[0], lessons.query_x
        loss = self._maml(support[:, None], lessons.support_y[0][:, None], query, lessons.query_y)[1]
        return float((loss[-1] if isinstance(loss, list) else loss).detach())


@contextmanager
def _packages_of(checkout: Path) -> Iterator[None]:
    """Imports come from this checkout, and are forgotten afterwards, so that another one's may have the same names."""
    sys.path.insert(0, str(checkout))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if name.split(".")[0] in OWNED]:
            del sys.modules[name]


def _anml(learner: ModuleType, factory: ModuleType, channels: int, inner_lr: float, outer_lr: float) -> Any:  # noqa: ARG001
    config: Sequence[Any] = factory.ModelFactory.get_model("Neuromodulation", "omniglot")
    told = SimpleNamespace(update_lr=inner_lr, meta_lr=outer_lr, update_step=20)
    made = learner.MetaLearingClassification(told, config, "Neuromodulation")
    for place, p in enumerate(made.net.parameters()):
        p.learn = place >= ANML_GATE
    return made


def _oml(learner: ModuleType, factory: ModuleType, channels: int, inner_lr: float, outer_lr: float) -> Any:
    config: list[dict[str, Any]] = factory.ModelFactory.get_model("na", "omniglot", output_dimension=1000)
    told: Mapping[str, Any] = {"update_lr": inner_lr, "meta_lr": outer_lr, "update_step": 5}
    for layer in config:
        sizes = layer.get("config", {})
        sizes.update({name: size // 256 * channels for name, size in sizes.items() if size % 256 == 0 and size})
    return learner.MetaLearingClassification(told, config)


def _names(kind: str) -> Iterator[str]:
    if kind == "oml":
        layers = [*(f"body.convs.{i}" for i in range(6)), "head"]
    else:
        blocks = {part: [f"{part}.{own}.{i}" for i in range(3) for own in ("convs", "norms")] for part in ("gate.0", "trunk")}
        layers = [*(f"body.{name}" for name in [*blocks["gate.0"], "gate.1", *blocks["trunk"]]), "head"]
    for layer in layers:
        yield from (f"{layer}.weight", f"{layer}.bias")


def images(shape: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Random ones: what they show costs nothing."""
    return torch.rand(1, count, *shape, generator=generator)
