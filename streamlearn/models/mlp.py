"""A multi-layer perceptron. Weights lie as [in, out], the layout in which the compiled kernel reads them row by row."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Dense(nn.Module):
    """x W + b with W [in, out]. Kaiming-normal weights, zero biases."""

    def __init__(self, inputs: int, outputs: int, fan_in: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / (fan_in or inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        return torch.addmm(self.bias, x, self.weight)


class MLP(nn.Module):
    """Flattened inputs through rectified layers; with no layer at all, the flattened inputs themselves.

    `fan_in` is the squared length of a usual row, where that is far from its number of inputs.
    Source  Gupta, Yadav, Paull 2020: 100-100 on MNIST, Kaiming-normal, zero biases.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], fan_in: int | None = None) -> None:
        super().__init__()
        sizes = [math.prod(shape), *hidden]
        self.layers = nn.ModuleList(Dense(i, o, None if at else fan_in) for at, (i, o) in enumerate(pairwise(sizes)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] → [n, last hidden size]."""
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
