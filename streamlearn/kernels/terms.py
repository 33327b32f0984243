"""The terms of a sum, listed: what is 0 contributes exactly nothing and is left out.

A listing writes every entry and then goes on, or not: which entries are 0 is a coin toss, and a branch on it would be guessed
wrong.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.sums import add_terms, sum_terms
from streamlearn.records import Array


class Terms(NamedTuple):
    """Rows of a table and their factors. Only as many as counted are meant."""

    picks: Array  # int64 [most terms + 1]
    factors: Array  # [most terms + 1]


def terms_for(most: int, dtype: Any) -> Terms:
    """Room for this many."""
    return Terms(np.zeros(most + 1, np.int64), np.zeros(most + 1, dtype))


@compiled
def accumulate(out: Array, row: int, table: Array, count: int, terms: Terms) -> None:
    """Add to out[row] the `count` picked rows of `table`, each times its factor."""
    add_terms(out, row, table, count, terms.picks, terms.factors)


@compiled
def summed(out: Array, row: int, table: Array, count: int, terms: Terms) -> None:
    """As `accumulate`, but to 0 in place of out[row]."""
    sum_terms(out, row, table, count, terms.picks, terms.factors)


@compiled
def pick_row(factors: Array, row: int, width: int, terms: Terms) -> int:
    """List the entries of factors[row] that are not 0. How many there are."""
    count = 0
    for i in range(width):
        terms.picks[count] = i
        terms.factors[count] = factors[row, i]
        count += factors[row, i] != 0
    return count


@compiled
def pick_column(factors: Array, column: int, rows: int, terms: Terms) -> int:
    """List the first `rows` entries of factors[:, column] that are not 0. How many there are."""
    count = 0
    for n in range(rows):
        terms.picks[count] = n
        terms.factors[count] = factors[n, column]
        count += factors[n, column] != 0
    return count
