"""The authors' learners, out of a checkout that the user points to: nothing of it is kept or copied here.

Source  github.com/montrealrobotics/La-MAML, read at commit cff3524. Its debugger `ipdb`, which it imports and never needs here,
        is replaced by an empty module; its warnings about itself are not shown.
"""

import importlib
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from streamlearn.records import Array, Json

DEFAULTS: Mapping[str, Json] = {
    "xav_init": False,
    "opt_wt": 0.1,
    "replay_batch_size": 10,
    "cuda": False,
    "learn_lr": True,
    "sync_update": False,
    "use_old_task_memory": True,
    "memories": 200,
    "second_order": False,
    "cifar_batches": 5,
}
MNIST = {"arch": "linear", "dataset": "mnist_rotations", "n_layers": 2, "n_hiddens": 100, "alpha_init": 0.15, "opt_lr": 0.3}
CIFAR = {"arch": "pc_cnn", "dataset": "cifar100", "n_layers": 2, "n_hiddens": 100, "alpha_init": 0.1, "opt_lr": 0.25}


class Reference:
    """`observe` of one of the authors' learners."""

    def __init__(
        self,
        checkout: Path,
        model: str,
        *,
        sizes: tuple[int, int, int],
        options: Mapping[str, Json],
        layers: Sequence[Any] | None = None,
    ) -> None:
        """`model` names a file of theirs; `sizes` are inputs, outputs and tasks; `layers` another network in their notation.

        Errors  FileNotFoundError when there is no checkout.
        """
        if not (checkout / "model" / "lamaml.py").is_file():
            raise FileNotFoundError(f"no model/lamaml.py in {checkout}: expected a checkout of the authors' code")
        sys.modules.setdefault("ipdb", types.ModuleType("ipdb"))
        sys.path.insert(0, str(checkout))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"model.{model}")
        named = SimpleNamespace(**{**DEFAULTS, **(CIFAR if model == "lamaml_cifar" else MNIST), **options})
        if layers is not None:
            importlib.import_module("model.meta.modelfactory").ModelFactory.get_model = lambda **_: layers
        self.device = "cuda" if named.cuda else "cpu"
        self._net: Any = module.Net(*sizes, named)

    def observe(self, x: Array, y: Array, task: int = 0) -> None:
        """All glances at one batch."""
        self._net.observe(torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device), task)
