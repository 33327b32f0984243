"""Rows as members of a pool are shown them: `columns.mean`, `.gain`, `.edges`, or `field.range`, `field.factor`."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from streamlearn.layout import Layout
from streamlearn.records import Array, Json


class Shown(NamedTuple):
    """See `learners.members.columns`."""

    z: Array  # float32 [n, inputs]
    u: Array  # float32 [n, places]
    lines: Array  # int64 [n, categorical columns]

    def some(self, rows: Array) -> "Shown":
        """These rows."""
        return Shown(self.z[rows], self.u[rows], self.lines[rows])


def shown(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Shown:
    """Raw inputs [n, *shape] as shown."""
    flat = np.asarray(x, np.float32).reshape(len(x), math.prod(x.shape[1:]))
    return _field(arrays, flat) if "field.range" in arrays else _columns(arrays, settings, flat)


def _columns(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Shown:
    layout = Layout.read(settings["columns"])
    mean, numbers, codes = arrays["columns.mean"], x[:, list(layout.numeric)], layout.codes(x)
    gaps = np.isnan(numbers)
    z = layout.standardised(x, mean, arrays["columns.gain"], settings["clip"])
    u = np.where(gaps, 0.5, places(np.where(gaps, mean, numbers), arrays["columns.edges"])).astype(np.float32)
    u = np.concatenate([u, layout.missing(x), layout.places(codes)], axis=1)
    return Shown(layout.inputs(x, z), u, layout.table_lines(codes))


def _field(arrays: Mapping[str, Array], x: Array) -> Shown:
    (low, high), factor = arrays["field.range"], np.float32(arrays["field.factor"][0])
    u = ((x - low) / (high - low)).clip(0.0, 1.0) if high > low else np.full(x.shape, 0.5)
    return Shown(x * factor, u.astype(np.float32), np.zeros((len(x), 0), np.int64))


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
    place = np.where(high > low, (low + high - 1) / (2.0 * steps), between)
    at_an_end: Array = np.where(low == 0, 0.0, np.where(high > steps, 1.0, place))
    return at_an_end
