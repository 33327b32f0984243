"""The replay memory."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.errors import CheckpointError
from streamlearn.memory import Columns, Reservoir


def reservoir(capacity: int, seed: int = 0) -> Reservoir:
    columns = {"x": torch.zeros(2), "label": torch.tensor(0)}
    return Reservoir(columns, capacity, torch.Generator().manual_seed(seed))


def items(start: int, end: int) -> Columns:
    """Item n carries the label n, and (n, −n) as its input."""
    n = torch.arange(start, end)
    return {"x": torch.stack([n, -n], 1).float(), "label": n}


def held(memory: Reservoir) -> list[int]:
    return memory.columns["label"][: len(memory)].tolist()


@pytest.mark.parametrize(("reference", "expected"), [(False, 5 / 20), (True, 5 / 21)])
def test_item_n_enters_with_probability_capacity_over_n(reference: bool, expected: float) -> None:
    """4,000 seeded memories; the bound is five standard deviations of a binomial share."""
    runs = 4000
    entered = 0
    for seed in range(runs):
        memory = reservoir(5, seed)
        memory.offer(items(0, 20), accept_reference=reference)
        entered += 19 in held(memory)
    share, deviation = entered / runs, (expected * (1 - expected) / runs) ** 0.5
    assert abs(share - expected) < 5 * deviation
    assert reference or abs(share - 5 / 21) > deviation


def test_every_item_is_held_with_the_same_probability() -> None:
    runs, counts = 4000, Counter[int]()
    for seed in range(runs):
        memory = reservoir(5, seed)
        memory.offer(items(0, 20))
        counts.update(held(memory))
    expected, deviation = runs / 4, (runs * 0.25 * 0.75) ** 0.5
    assert all(abs(counts[n] - expected) < 5 * deviation for n in range(20))


def test_all_is_held_while_there_is_room_and_columns_stay_together() -> None:
    memory = reservoir(8)
    memory.offer(items(0, 6))
    assert held(memory) == list(range(6))
    memory.offer(items(6, 500))
    assert len(memory) == 8
    label = memory.columns["label"].float()
    torch.testing.assert_close(memory.columns["x"], torch.stack([label, -label], 1))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_how_items_are_grouped_in_offers_does_not_matter(sizes: list[int]) -> None:
    whole, pieces = reservoir(4), reservoir(4)
    whole.offer(items(0, sum(sizes)))
    start = 0
    for size in sizes:
        pieces.offer(items(start, start + size))
        start += size
    assert held(whole) == held(pieces)
    assert torch.equal(whole.generator.get_state(), pieces.generator.get_state())


@given(size=st.integers(0, 30), count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_a_draw_without_replacement_repeats_nothing(size: int, count: int, seed: int) -> None:
    memory = reservoir(30, seed)
    memory.offer(items(0, size))
    slots = memory.draw(count).tolist()
    assert len(slots) == len(set(slots)) == min(size, count)
    assert all(0 <= slot < size for slot in slots)


def test_draws_are_uniform_over_ordered_pairs() -> None:
    memory = reservoir(4)
    memory.offer(items(0, 4))
    draws = 6000
    without = Counter(tuple(memory.draw(2).tolist()) for _ in range(draws))
    assert set(without) == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert all(abs(n - draws / 12) < 5 * (draws / 12) ** 0.5 for n in without.values())
    replaced = Counter(tuple(memory.draw(2, with_replacement=True).tolist()) for _ in range(draws))
    assert len(replaced) == 16
    assert all(abs(n - draws / 16) < 5 * (draws / 16) ** 0.5 for n in replaced.values())


def test_an_offer_can_be_taken_back() -> None:
    memory = reservoir(5)
    memory.offer(items(0, 3))
    before, columns = memory.seen, memory.take(torch.arange(5))
    memory.undo(memory.offer(items(3, 40)))
    assert memory.seen == before
    assert all(torch.equal(part, columns[name]) for name, part in memory.take(torch.arange(5)).items())


def test_what_was_offered_may_change_afterwards() -> None:
    memory, rows = reservoir(5), items(0, 5)
    memory.offer(rows)
    rows["label"][:] = -1
    taken = memory.take(torch.arange(5))
    taken["label"][:] = -1
    assert held(memory) == [0, 1, 2, 3, 4]


@given(st.integers(0, 30))
def test_a_restored_memory_goes_on_as_the_first_would(before: int) -> None:
    one, two = reservoir(5), reservoir(5, seed=9)
    one.offer(items(0, before))
    two.offer(items(50, 60))
    two.restore(one.state())
    for memory in (one, two):
        memory.offer(items(before, before + 20))
    assert held(one) == held(two)
    assert one.draw(3).tolist() == two.draw(3).tolist()
    assert np.array_equal(one.state().arrays["x"], two.state().arrays["x"])


def test_a_memory_of_another_size_is_refused() -> None:
    memory = reservoir(5)
    memory.offer(items(0, 9))
    with pytest.raises(CheckpointError, match=r"holds shape \(5, 2\) for 'x': expected \(6, 2\)"):
        reservoir(6).restore(memory.state())


def test_labels_are_counted() -> None:
    memory = reservoir(5)
    assert memory.labels() == {}
    memory.offer({"x": torch.zeros(4, 2), "label": torch.tensor([7, 3, 7, 7])})
    assert memory.labels() == {3: 1, 7: 3}
