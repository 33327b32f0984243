"""Convolutional trunks of the meta-learning papers. The trunk ends where the head begins, so that the two can be told apart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamlearn.errors import ConfigError


class Block(NamedTuple):
    """One 3×3 convolution."""

    stride: int = 1
    padding: int = 0
    pool: bool = False  # 2×2 maximum after it
    norm: bool = True  # each channel of each image to mean 0 and deviation 1, then a learned scale and shift


LAYOUTS: Mapping[str, tuple[Block, ...]] = {
    "pooled": (Block(pool=True), Block(pool=True), Block()),
    "strided": tuple(Block(stride=stride, norm=False) for stride in (2, 1, 2, 1, 2, 2)),
    "conv4": tuple(Block(stride=2, padding=1) for _ in range(4)),
}
"""`pooled`: ANML at 28×28; `strided`: OML at 84×84; `conv4`: MAML at 28×28, with norms of one image alone."""


class Split(nn.Module):
    """Convolution, norm, rectification, as often as the layout says; flattened at the end.

    Shapes  inputs [n, height, width] or [n, channels, height, width].
    Source  Beaulieu et al. 2020; Javed and White 2019; Finn et al. 2017. Their batch norm over one image is the norm here;
            over several images it would make an answer depend on its batch mates.
    """

    def __init__(self, shape: Sequence[int], channels: int, layout: str) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            raise ConfigError(f"model 'split' got inputs of shape {list(shape)}: expected height and width, or channels before")
        self.blocks = LAYOUTS[layout]
        _check_size(shape, layout)
        depths = [shape[0] if len(shape) == 3 else 1] + [channels] * (len(self.blocks) - 1)
        convs = [
            nn.Conv2d(depth, channels, 3, stride=block.stride, padding=block.padding)
            for depth, block in zip(depths, self.blocks, strict=True)
        ]
        self.norms = nn.ModuleList(ImageNorm(channels) if block.norm else nn.Identity() for block in self.blocks)
        self.convs = nn.ModuleList(convs)
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type] # made with a bias

    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] → [n, features]."""
        x = x.unsqueeze(1) if x.dim() == 3 else x
        for block, conv, norm in zip(self.blocks, self.convs, self.norms, strict=True):
            x = norm(conv(x))
            x = (
                functional.max_pool2d(x, 2) if block.pool else x
            )  # before rectifying, which is the same, and of a quarter less work
            x = torch.relu(x)
        return x.flatten(1)


class ImageNorm(nn.Module):
    """Each channel of each image for itself: a group norm with a group for each channel, which torch has in one pass."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] → the same."""
        return functional.group_norm(x, len(self.weight), self.weight, self.bias)


def _check_size(shape: Sequence[int], layout: str) -> None:
    for side in shape[-2:]:
        left = side
        for block in LAYOUTS[layout]:
            left = (left + 2 * block.padding - 3) // block.stride + 1
            left //= 2 if block.pool else 1
        if left < 1:
            raise ConfigError(f"model layout '{layout}' cannot take inputs of shape {list(shape)}: expected larger images")
