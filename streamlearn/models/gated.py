"""A trunk whose features a second network opens and closes, input by input (neuromodulation)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from streamlearn.models.mlp import MLP
from streamlearn.models.split import Split


class Gated(nn.Module):
    """trunk(x) · σ(gate(x)), feature by feature. Images pass through `Split` trunks, vectors through an `MLP` each.

    Source  Beaulieu et al. 2020: 256 channels in the trunk and 112 in the gate, then one linear layer to the gate's values.
    """

    def __init__(self, shape: Sequence[int], *, channels: int, gate_channels: int, layout: str, hidden: Sequence[int]) -> None:
        super().__init__()

        def network(width: int) -> nn.Module:
            return MLP(shape, hidden) if len(shape) == 1 else Split(shape, width, layout)

        self.trunk, inside = network(channels), network(gate_channels)
        with torch.no_grad():
            probe = torch.zeros(1, *shape)
            opening = nn.Linear(inside(probe).shape[1], self.trunk(probe).shape[1])
        nn.init.kaiming_normal_(opening.weight)
        nn.init.zeros_(opening.bias)
        self.gate = nn.Sequential(inside, opening, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] → [n, features]."""
        return cast(Tensor, self.trunk(x)) * cast(Tensor, self.gate(x))
