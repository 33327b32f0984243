"""Images of a corpus seen otherwise: turned by quarters into further classes, and moved, turned or stretched at random."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from streamlearn.errors import ConfigError
from streamlearn.meta.settings import ViewSettings
from streamlearn.records import Array


def check(views: ViewSettings, shape: tuple[int, ...]) -> None:
    """Errors: ConfigError when views are asked for and the samples are no images, or cannot be turned by a quarter."""
    asked = [name for name, value in views.model_dump().items() if value]
    if asked and len(shape) not in (2, 3):
        raise ConfigError(
            f"corpus.views.{asked[0]} is given, the inputs are {list(shape)}: expected images [h, w] or [c, h, w]"
        )
    if views.quarter_turns and shape[-1] != shape[-2]:
        raise ConfigError(f"corpus.views.quarter_turns is true, the inputs are {list(shape)}: expected images as high as wide")


def quarter_turns(x: Array) -> Array:
    """Images [n, …, h, h] as they are, then all of them turned by 90, by 180 and by 270 degrees: [4 n, …, h, h]."""
    return np.concatenate([np.rot90(x, quarters, axes=(-2, -1)) for quarters in range(4)])


def seen(images: Tensor, views: ViewSettings, random: np.random.Generator) -> Tensor:
    """Each of `images` [n, h, w] or [n, c, h, w] under an affine map of its own, linear between pixels; the edge goes on.

    Uniform: the centre within `shift` pixels along each axis, the angle within `turn` degrees either way, the logarithm of each
    side's length within that of 1 + `stretch` either way.
    """
    if not (views.shift or views.turn or views.stretch):
        return images
    planes = images if images.dim() == 4 else images[:, None]
    drawn = random.uniform(-1, 1, (len(planes), 5))
    angle, (wide, high) = math.radians(views.turn) * drawn[:, 0], np.exp(np.log1p(views.stretch) * drawn[:, 1:3].T)
    half = np.array(planes.shape[-2:][::-1]) / 2  # of the image's width and height: its places go from -1 to 1
    maps = np.empty((len(planes), 2, 3))  # from a place of the view to the place of the image that is seen there
    maps[:, 0] = np.stack(
        [np.cos(angle) / wide, np.sin(angle) / wide * half[1] / half[0], views.shift * drawn[:, 3] / half[0]], 1
    )
    maps[:, 1] = np.stack(
        [-np.sin(angle) / high * half[0] / half[1], np.cos(angle) / high, views.shift * drawn[:, 4] / half[1]], 1
    )
    places = functional.affine_grid(torch.from_numpy(maps).to(planes), list(planes.shape), align_corners=False)
    found = functional.grid_sample(planes, places, mode="bilinear", padding_mode="border", align_corners=False)
    return found.reshape(images.shape)
