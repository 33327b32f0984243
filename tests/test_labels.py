"""The append-only label map."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.errors import CheckpointError, DecodeError
from streamlearn.labels import LabelMap

WIRE = st.one_of(st.text(max_size=3), st.integers(-3, 3))


@given(st.lists(WIRE, max_size=40))
def test_a_label_keeps_its_row_whatever_comes_after(stream):
    """Oracle: the position of a label's first appearance among the distinct labels, text and integers apart."""
    labels = LabelMap(max_labels=100)
    first_seen: list[tuple[type, object]] = []
    for label in stream:
        if (type(label), label) not in first_seen:
            first_seen.append((type(label), label))
        assert labels.row(label) == first_seen.index((type(label), label))


def test_a_number_and_the_same_digits_as_text_are_two_labels():
    labels = LabelMap(max_labels=4)
    assert [labels.row(1), labels.row("1"), labels.row(1)] == [0, 1, 0]


def test_the_map_is_restored_with_its_types():
    labels = LabelMap(max_labels=4)
    for label in (7, "7", -1):
        labels.row(label)
    again = LabelMap(max_labels=4)
    again.restore(labels.state())
    assert again.by_row == (7, "7", -1)
    assert again.row("new") == 3


def test_a_label_beyond_the_bound_is_refused_and_admits_nothing():
    labels = LabelMap(max_labels=2, known=("a", "b"))
    with pytest.raises(DecodeError, match=r"label 'c' is new, and all 2 rows"):
        labels.row("c")
    assert labels.by_row == ("a", "b")
    assert labels.row("b") == 1


def test_a_checkpoint_with_more_labels_than_allowed_is_refused():
    labels = LabelMap(max_labels=3, known=("a", "b", "c"))
    with pytest.raises(CheckpointError, match=r"3 labels: expected at most label\.max_labels = 2"):
        LabelMap(max_labels=2).restore(labels.state())


@given(st.lists(WIRE, max_size=40), st.integers(2, 6))
def test_further_labels_share_the_last_row_which_is_kept_for_them(stream, most):
    """Oracle: the first `most` - 1 labels have rows of their own, all later ones that of "other", which may come as well."""
    labels, own = LabelMap(max_labels=most, other="other"), []
    for label in [*stream, "other", *stream]:
        if label != "other" and label not in own and len(own) < most - 1:
            own.append(label)
        row = labels.row(label)
        name = labels.by_row[row]
        assert (type(name), name) == ((type(label), label) if label in own else (str, "other"))
    assert len(labels) <= most
    again = LabelMap(max_labels=most, other="other")
    again.restore(labels.state())
    assert [again.row(label) for label in stream] == [labels.row(label) for label in stream]


def test_a_full_map_without_the_label_that_is_to_be_shared_refuses_as_before():
    full = LabelMap(max_labels=2, known=("a", "b"))
    later = LabelMap(max_labels=2, other="other")
    later.restore(full.state())
    with pytest.raises(DecodeError, match=r"all 2 rows"):
        later.row("c")
    assert later.by_row == ("a", "b")
