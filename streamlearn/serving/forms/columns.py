"""Rows as members of a pool are shown them: `columns.mean`, `.gain`, `.edges`, or `field.range`, `field.factor`."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array, Json


class Shown(NamedTuple):
    """See `learners.members.columns`."""

    filled: Array  # float32 [n, features]
    gain: Array  # float32 [features]
    z: Array  # float32 [n, columns]
    u: Array  # float32 [n, columns]


def shown(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Shown:
    """Raw inputs [n, *shape] as shown."""
    flat = np.asarray(x, np.float32).reshape(len(x), math.prod(x.shape[1:]))
    return _field(arrays, flat) if "field.range" in arrays else _columns(arrays, settings, flat)


def _columns(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Shown:
    mean, gain, clip = arrays["columns.mean"], arrays["columns.gain"], settings["clip"]
    gaps = np.isnan(x)
    filled = np.where(gaps, mean, x).astype(np.float32)
    z = np.where(gaps, 0.0, ((x - mean) * gain).clip(-clip, clip)).astype(np.float32)
    u = np.where(gaps, 0.5, places(x, arrays["columns.edges"])).astype(np.float32)
    if settings["missing"]:
        z, u = (np.concatenate([part, gaps.astype(np.float32)], axis=1) for part in (z, u))
    return Shown(filled, gain.astype(np.float32), z, u)


def _field(arrays: Mapping[str, Array], x: Array) -> Shown:
    (low, high), factor = arrays["field.range"], np.float32(arrays["field.factor"][0])
    u = ((x - low) / (high - low)).clip(0.0, 1.0) if high > low else np.full(x.shape, 0.5)
    return Shown(x, np.full(x.shape[1], factor), x * factor, u.astype(np.float32))


def places(x: Array, edges: Array) -> Array:
    """Where values [n, columns] lie among sorted edges [columns, edges], in [0, 1]; ½ while there are none."""
    steps = edges.shape[1] - 1
    if steps < 1:
        return np.full(x.shape, 0.5)
    low, high = (edges < x[:, :, None]).sum(2), (edges <= x[:, :, None]).sum(2)
    after = low.clip(1, steps)
    columns = np.arange(len(edges))
    left, right = (edges[columns, at].astype(np.float64) for at in (after - 1, after))
    within = np.divide(x - left, right - left, out=np.zeros(x.shape), where=right > left)
    between = (after - 1 + within.clip(0.0, 1.0)) / steps
    place: Array = np.where(high > low, (low + high - 1) / (2.0 * steps), between)
    return place
