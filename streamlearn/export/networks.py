"""Forms that are one network, as modules: `serving/forms/` once more, in torch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from streamlearn.errors import ConfigError
from streamlearn.export.shown import Arrays, Transform, kept
from streamlearn.models.classifier import ModelSettings, build
from streamlearn.records import Json
from streamlearn.settings import read


class Perceptron(nn.Module):
    """See `forms.mlp`."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json]) -> None:
        super().__init__()
        self.transform, self.layers = Transform(arrays, settings), nn.ModuleList()
        weights = weights_about(arrays, settings)
        while (weight := weights.get(f"body.layers.{len(self.layers)}.weight")) is not None:
            self.layers.append(linear(kept(weight).T, kept(weights[f"body.layers.{len(self.layers)}.bias"])))
        self.head = linear(kept(weights["head.weight"]), kept(weights["head.bias"]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.transform(x).flatten(1)
        for layer in self.layers:
            h = torch.relu(layer(h))
        scores: Tensor = self.head(h)
        return scores


class NearestMean(nn.Module):
    """See `forms.nearest_mean`."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json]) -> None:
        super().__init__()
        means = kept(arrays["means"])
        self.transform, self.head = Transform(arrays, settings), linear(means, -0.5 * (means**2).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.transform(x).flatten(1))
        return scores


class Network(nn.Module):
    """See `forms.torch`: a built-in body by its name, an own one from the factory that the caller names."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json], *, module: str = "") -> None:
        """Errors: ConfigError when it is an own module, and `module` does not name its factory."""
        super().__init__()
        if settings["model"].get("module") and not module:
            raise ConfigError(
                f"the model is the own module {settings['model']['module']!r}: name it with --module to export it"
            )
        made = read(ModelSettings, {**settings["model"], "module": module}, path="snapshot.model")
        weights = weights_about(arrays, settings)
        self.transform, self.body = Transform(arrays, settings), build(made, tuple(settings["shape"]), seed=0).body
        moved = {name.removeprefix("body."): kept(array) for name, array in weights.items() if name.startswith("body.")}
        self.body.load_state_dict({**self.body.state_dict(), **moved})
        self.head = linear(kept(weights["head.weight"]), kept(weights["head.bias"]))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(self.transform(x)))
        return scores


def weights_about(arrays: Arrays, settings: Mapping[str, Json]) -> Arrays:
    """Those that answer what the question is about. See `forms.inputs.weights_about`."""
    prefix = "ever/" if settings.get("about") == "ever" and "ever/head.weight" in arrays else ""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """h ↦ h Wᵀ + b."""
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight, made.bias = (nn.Parameter(part.contiguous(), requires_grad=False) for part in (weight, bias))
    return made
