"""Rows are cut by count alone."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.chunks import FIELDS, Chunks
from streamlearn.records import Batch, State, stacked_evidence


def rows(first: int, n: int) -> Batch:
    numbers = np.arange(first, first + n)
    return Batch.of(np.stack([numbers, -numbers], 1), numbers % 3)


@given(st.lists(st.integers(0, 25), max_size=12), st.integers(1, 10))
def test_whole_chunks_come_out_in_order_however_rows_come_in(sizes, chunk):
    chunks, out, given_ = Chunks(chunk, (2,)), [], 0
    for n in sizes:
        batch = chunks.cut(rows(given_, n))
        given_ += n
        assert len(batch) % chunk == 0
        out.extend(batch.x[:, 0].tolist())
    assert out == list(range(given_ - given_ % chunk))
    assert len(chunks) == given_ % chunk


def test_what_waits_is_restored_with_all_its_columns():
    chunks = Chunks(4, (2,))
    chunks.cut(rows(0, 7))
    again = Chunks(4, (2,))
    again.restore(chunks.state())
    one, other = chunks.cut(rows(7, 1)), again.cut(rows(7, 1))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8), st.integers(1, 5))
def test_each_row_keeps_its_evidence_and_what_waits_does_not_depend_on_how_rows_came(batches, chunk):
    """Row by row of another length; what else came in its batch leaves no trace in the state."""
    one, single, kept, number = Chunks(chunk, (2,)), Chunks(chunk, (2,)), [], 0
    for lengths in batches:
        parts = [np.full((1, k), number + i, np.float32) for i, k in enumerate(lengths)]
        batch = rows(number, len(parts))
        kept += one.cut(replace(batch, evidence=stacked_evidence(parts))).evidence.tolist()
        for i, part in enumerate(parts):
            single.cut(replace(batch[i : i + 1], evidence=part))
        number += len(parts)
        for name, array in one.state().arrays.items():
            np.testing.assert_array_equal(array, single.state().arrays[name], err_msg=name)
    lengths = [k for each in batches for k in each]
    assert [[v for v in row if not math.isnan(v)] for row in kept] == [[n] * lengths[n] for n in range(len(kept))]


def test_a_state_from_before_there_was_evidence_is_restored():
    chunks = Chunks(4, (2,))
    chunks.cut(rows(0, 7))
    state = chunks.state()
    again = Chunks(4, (2,))
    again.restore(State({name: array for name, array in state.arrays.items() if name != "evidence"}))
    assert len(again.cut(rows(7, 1))) == 4


def test_rows_that_wait_do_not_follow_later_changes_of_the_batch():
    chunks, batch = Chunks(4, (2,)), rows(0, 3)
    chunks.cut(batch)
    batch.x[:] = 99
    assert chunks.cut(rows(3, 1)).x[:, 0].tolist() == [0, 1, 2, 3]
