"""The convolutional network of the La-MAML paper."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from streamlearn.errors import ConfigError


class Conv(nn.Module):
    """Three 3×3 convolutions of stride 2 and padding 1, then rectified linear layers.

    Shapes  inputs [n, height, width] or [n, channels, height, width]; with `channels_last` [n, height, width, channels].
    Source  Gupta, Yadav, Paull 2020, CIFAR-100: 160 channels, linear 320 and 320; Kaiming-normal, zero biases.
    """

    def __init__(self, shape: Sequence[int], channels: int, hidden: Sequence[int], *, channels_last: bool) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            raise ConfigError(
                f"model 'conv' got inputs of shape {list(shape)}: expected height and width, with channels or without"
            )
        self.channels_last = channels_last and len(shape) == 3
        depth = 1 if len(shape) == 2 else shape[-1 if channels_last else 0]
        self.convs = nn.ModuleList(nn.Conv2d(d, channels, 3, stride=2, padding=1) for d in (depth, channels, channels))
        with torch.no_grad():
            flat = self._maps(torch.zeros(1, *shape)).shape[1]
        sizes = [flat, *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        for layer in (*self.convs, *self.layers):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] → [n, last hidden size]."""
        x = self._maps(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x

    def _maps(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x.unsqueeze(1)
        elif self.channels_last:
            x = x.movedim(-1, 1)
        for conv in self.convs:
            x = torch.relu(conv(x))
        return x.flatten(1)
