"""The sum written in vector instructions, against the sum itself."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.sums import add_fours, add_groups, add_terms, sum_terms
from streamlearn.records import Array


@compiled
def both(added: Array, fresh: Array, table: Array, picks: Array, factors: Array) -> None:
    """Into the middle row of each."""
    add_terms(added, 1, table, len(picks), picks, factors)
    sum_terms(fresh, 1, table, len(picks), picks, factors)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-14)])
@settings(max_examples=120, deadline=None)
@given(width=st.integers(1, 300), narrower=st.integers(0, 3), count=st.integers(0, 30), seed=st.integers(0, 1000))
def test_each_width_gives_the_sum_and_touches_nothing_else(
    *, dtype: Any, tolerance: float, width: int, narrower: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(size=(7, max(1, width - narrower))).astype(dtype)
    out = random.normal(size=(3, width)).astype(dtype)
    picks, factors = random.integers(0, 7, count), random.normal(size=count).astype(dtype)
    expected = (factors[:, None].astype(np.float64) * table[picks]).sum(0)
    added, fresh, reach = out.copy(), out.copy(), table.shape[1]
    both(added, fresh, table, picks, factors)
    np.testing.assert_allclose(added[1, :reach], out[1, :reach] + expected, rtol=tolerance, atol=tolerance * 30)
    np.testing.assert_allclose(fresh[1, :reach], expected, rtol=tolerance, atol=tolerance * 30)
    for found in (added, fresh):
        np.testing.assert_array_equal(found[[0, 2]], out[[0, 2]])
        np.testing.assert_array_equal(found[1, reach:], out[1, reach:])


def test_terms_are_summed_in_their_order() -> None:
    """1 + 2⁻²⁴ − 1 is 0 in float32, and 1 − 1 + 2⁻²⁴ is not: in whichever column, and however many there are."""
    table, picks = np.ones((1, 150), np.float32), np.zeros(3, np.int64)
    for factors, expected in (([1, 2**-24, -1], 0.0), ([1, -1, 2**-24], 2**-24)):
        out = np.zeros((3, 150), np.float32)
        both(out, out.copy(), table, picks, np.array(factors, np.float32))
        np.testing.assert_array_equal(out[1], np.full(150, expected, np.float32))


@compiled
def by_fours(out: Array, width: int, table: Array, picks: Array, factors: Array) -> None:
    add_fours(out, 1, width, table, len(picks), picks, factors)


@compiled
def by_groups(out: Array, width: int, table: Array, picks: Array, factors: Array) -> None:
    add_groups(out, 1, width, table, len(picks), picks, factors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=120, deadline=None)
@given(width=st.integers(1, 300), wider=st.integers(0, 3), count=st.integers(0, 30), seed=st.integers(0, 1000))
def test_fours_are_added_in_their_order_with_every_rounding(
    *, dtype: Any, width: int, wider: int, count: int, seed: int
) -> None:
    """To the last bit what NumPy makes of the same products and sums, one by one."""
    random = np.random.default_rng(seed)
    table = random.normal(size=(7, width + wider)).astype(dtype)
    out = random.normal(size=(3, width + (seed % 3))).astype(dtype)
    picks, factors = random.integers(0, 7, count), random.normal(size=count).astype(dtype)
    products = [factor * table[pick, :width] for pick, factor in zip(picks, factors, strict=True)]
    whole = count - count % 4
    fours = out[1, :width].copy()
    for a, b, c, d in zip(*(products[t:whole:4] for t in range(4)), strict=True):
        fours += (a + b) + (c + d)
    groups = fours.copy()
    for product in products[whole:]:
        fours += product
    match products[whole:]:
        case [a]:
            groups += a
        case [a, b]:
            groups += a + b
        case [a, b, c]:
            groups += (a + b) + c
    for add, expected in ((by_fours, fours), (by_groups, groups)):
        found = out.copy()
        add(found, width, table, picks, factors)
        np.testing.assert_array_equal(found[1, :width], expected)
        np.testing.assert_array_equal(found[[0, 2]], out[[0, 2]])
        np.testing.assert_array_equal(found[1, width:], out[1, width:])
