"""CIFAR-100 out of the packed files of the benchmark folder.

An image is kept as planes G, R − G and B − G, each as what its median edge prediction left over, plus 128, modulo 256. A block
of images is one xz stream, plane by plane. Unpacking takes a while, so that images are kept unpacked in a cache folder.

Source  Weinberger, Seroussi, Sapiro 2000, LOCO-I: the median edge detector.
"""

import hashlib
import lzma
import os
from pathlib import Path

import numba
import numpy as np

from benchmarks.images import FOLDER, Images
from streamlearn.records import Array

FILES = ("train_a", "train_b", "test")


def cifar100() -> Images:
    """RGB images of 32 by 32, in label order. Errors: FileNotFoundError when STREAMLEARN_DATA does not name their folder."""
    paths = [Path(os.environ.get(FOLDER, "")) / f"cifar100_{part}.npz" for part in FILES]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no {path}: expected the environment's {FOLDER} to name the folder of the benchmark data")
    (x_a, y_a), (x_b, y_b), (x, y) = (_cached(path) for path in paths)
    return Images("CIFAR-100", np.concatenate([x_a, x_b]), np.concatenate([y_a, y_b]), x, y)


def _cached(path: Path) -> tuple[Array, Array]:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "streamlearn"
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    kept = folder / f"{path.stem}-{sha}.npz"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        x, y = read_packed(path)
        beside = kept.with_suffix(f".{os.getpid()}.tmp")
        with beside.open("wb") as file:
            np.savez(file, x=x, y=y)
        beside.replace(kept)
    with np.load(kept, allow_pickle=False) as held:
        return held["x"], held["y"]


def read_packed(path: Path) -> tuple[Array, Array]:
    """uint8 [n, height, width, 3] and int64 [n] of a packed file."""
    with np.load(path, allow_pickle=False) as held:
        height, width = (int(size) for size in held["image_shape"][:2])
        blocks = [
            unpacked(held[f"block_{number:02d}"].tobytes(), int(count), height, width)
            for number, count in enumerate(held["block_images"])
        ]
        return np.concatenate(blocks), held["y"].astype(np.int64)


def unpacked(block: bytes, count: int, height: int, width: int) -> Array:
    """The images of one block, uint8 [count, height, width, 3]."""
    left_over = np.frombuffer(lzma.decompress(block), np.uint8).reshape(3, count, height, width)
    planes = np.zeros((3, count, height, width), np.int64)
    _predict_back(left_over.astype(np.int64) - 128, planes)
    green = planes[0]
    return np.stack([planes[1] + green, green, planes[2] + green], axis=-1).astype(np.uint8)


@numba.njit(cache=False)
def _predict_back(left_over: Array, planes: Array) -> None:
    """Differences are to be added to green modulo 256, so that they lie in −green … 255 − green."""
    _, count, height, width = planes.shape
    for k in range(3):
        for n in range(count):
            for r in range(height):
                for c in range(width):
                    value = left_over[k, n, r, c] + _predicted(planes[k, n], r, c)
                    green = planes[0, n, r, c] if k else 0
                    planes[k, n, r, c] = ((value + green) & 255) - green


@numba.njit(cache=False)
def _predicted(plane: Array, r: int, c: int) -> int:
    """What left, above, and above left say."""
    if r == 0 or c == 0:
        return plane[r, c - 1] if c else plane[r - 1, c] if r else 0
    left, above, corner = plane[r, c - 1], plane[r - 1, c], plane[r - 1, c - 1]
    middle: int = min(max(left + above - corner, min(left, above)), max(left, above))
    return middle
