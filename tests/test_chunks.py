"""Rows are cut by count alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.chunks import FIELDS, Chunks
from streamlearn.records import Batch


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


def test_rows_that_wait_do_not_follow_later_changes_of_the_batch():
    chunks, batch = Chunks(4, (2,)), rows(0, 3)
    chunks.cut(batch)
    batch.x[:] = 99
    assert chunks.cut(rows(3, 1)).x[:, 0].tolist() == [0, 1, 2, 3]
