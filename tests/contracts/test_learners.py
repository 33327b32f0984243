"""Every registered learner keeps the promises of `protocols.Learner`: `check_*` functions × every name in the table."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.errors import MemoryShortError
from streamlearn.inputs import InputSettings
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, LearnReport, State
from streamlearn.serving.forms import form_named
from streamlearn.shortage import Attempts

SHAPE = (3, 2)
SMALL: Mapping[str, dict[str, Any]] = {
    "la-maml": {"glances": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "sliding-look-ahead": {"memory": {"rows": 12}},
    "sync": {"glances": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "c-maml": {"glances": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "er": {"glances": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "la-er": {"glances": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "mer": {"passes": 2, "memory": {"rows": 12}, "replay_rows": 4},
    "continual-maml": {"outer_lr": 0.03},
    "gradient-flow": {"rows": 12},
    "pool": {
        "inputs": {"sample_rows": 10},
        "partitions": {"trees": 5, "depth": 3},
        "steady_partitions": {"trees": 5, "depth": 3},
        "settled_partitions": {"trees": 5, "depth": 3},
        "plastic_mlp": {"hidden": (7, 5), "recent_rows": 4},
        "sliding_look_ahead": {"memory": {"rows": 8}},
        "gate": {"half_life": 5.0, "window": 6, "every": 2, "quantile": 0.3},
    },
    "quantile-ramps": {"ramps": 3, "inputs": {"sample_rows": 10}},
    "partitions": {"trees": 5, "depth": 3},
    "plastic-mlp": {"hidden": (7, 5), "recent_rows": 8},
}
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "la-maml, late offers": ("la-maml", {"memory": {"rows": 12, "offer_early": False}}),
    "la-maml, second order": ("la-maml", {"second_order": True, "floor_inner": False, "inner_clip": 1.0}),
    "la-maml, heads by context": ("la-maml", {"max_contexts": 4, "inner_chunks": 5}),
    "la-maml, as the authors draw": ("la-maml", {"memory": {"rows": 12, "with_replacement": True, "accept_reference": True}}),
    "la-maml, plain arithmetic": ("la-maml", {"kernel": "torch", "memory": {"rows": 12}}),
    "la-maml, fixed shapes": ("la-maml", {"kernel": "static", "max_contexts": 4, "memory": {"rows": 12}}),
    "sliding-look-ahead, heads by context": ("sliding-look-ahead", {"max_contexts": 4, "window": 5, "update_every": 3}),
    "sliding-look-ahead, plain": ("sliding-look-ahead", {"kernel": "torch"}),
    "mer, plain arithmetic": ("mer", {"kernel": "torch", "passes": 2, "memory": {"rows": 12}, "replay_rows": 4}),
    "mer, heads by context": ("mer", {"max_contexts": 4, "passes": 2, "memory": {"rows": 12}, "replay_rows": 4}),
    "er, late offers": ("er", {"glances": 2, "memory": {"rows": 12, "offer_early": False}}),
}
ALL = [*LEARNERS, *VARIANTS]


def make(name: str, **changes: Any) -> Learner:
    """A small learner of this name, its inputs standardised so that they too have a state."""
    registered, options = VARIANTS.get(name, (name, {}))
    module, _, attribute = LEARNERS[registered].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    task = Task(
        **{"shape": SHAPE, "max_labels": 40, "model": small_mlp(), "inputs": InputSettings(kind="standardise"), **changes}
    )
    return kind(kind.Settings(**{**SMALL.get(registered, {}), **options}), task)


def small_mlp() -> ModelSettings:
    return ModelSettings(hidden=(7, 5))


def rows(count: int, *, labels: int = 3, seed: int = 0) -> Batch:
    """Separable rows in two contexts."""
    random = np.random.default_rng(seed)
    y = random.integers(0, labels, count)
    x = random.normal(size=(count, *SHAPE)) + y[:, None, None]
    return Batch.of(x, y, contexts=y % 2)


def digest(learner: Learner) -> str:
    """Of everything that `restore` would need."""
    return state_digest(learner.state())


def state_digest(state: State) -> str:
    summary = hashlib.sha256(json.dumps(state.values, sort_keys=True).encode())
    for name in sorted(state.arrays):
        array = state.arrays[name]
        summary.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return summary.hexdigest()


def whole(learner: Learner, chunks: int, **options: Any) -> Batch:
    return rows(learner.chunk * chunks, **options)


def check_resuming_equals_a_straight_run(make_learner: Callable[..., Learner]) -> None:
    straight, first, second = make_learner(), make_learner(), make_learner()
    batch = whole(straight, 8)
    half = straight.chunk * 4
    expected = straight.learn(batch)
    first.learn(batch[:half])
    second.restore(first.state())
    report = second.learn(batch[half:])
    assert digest(second) == digest(straight)
    np.testing.assert_array_equal(report.logits, expected.logits[half:])


def check_state_is_a_copy(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    state = learner.state()
    before = state_digest(state)
    learner.learn(whole(learner, 3, seed=1))
    assert state_digest(state) == before
    later = digest(learner)
    for array in state.arrays.values():
        array[...] = 0
    assert digest(learner) == later


def check_predicting_changes_nothing(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    before, random = digest(learner), torch.get_rng_state()
    x = rows(9, seed=5).x
    kept = x.copy()
    first = learner.predict(x)
    for about in ("now", "ever", "auto"):
        learner.predict(x, about=about)
    learner.answering()
    learner.memory_labels()
    assert digest(learner) == before
    assert torch.equal(torch.get_rng_state(), random)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(learner.predict(x), first)


def check_an_answer_is_a_prediction_and_changes_nothing(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    for _ in range(3):
        before, random = digest(learner), torch.get_rng_state()
        x = rows(4, seed=5).x
        answer = learner.answer(x)
        np.testing.assert_array_equal(answer.logits, learner.predict(x))
        assert (answer.evidence.dtype, len(answer.evidence)) == (np.float32, 4)
        assert digest(learner) == before
        assert torch.equal(torch.get_rng_state(), random)
        learner.learn(whole(learner, 2, seed=1))


def check_rows_that_were_answered_earlier_are_learned_alike_however_they_come(make_learner: Callable[..., Learner]) -> None:
    """In one call or chunk by chunk, with wider evidence, and after a restart."""
    one, two, three = make_learner(), make_learner(), make_learner()
    first, late = whole(one, 3), whole(one, 4, seed=1, labels=5)
    for each in (one, two):
        each.learn(first)
    evidence = one.answer(late.x).evidence
    for each in (one, two):
        each.learn(whole(one, 2, seed=2))
    half, batch = 2 * one.chunk, replace(late, evidence=evidence)
    report = one.learn(replace(late, evidence=np.pad(evidence, ((0, 0), (0, 3)), constant_values=np.nan)))
    reports = [two.learn(batch[:half])]
    three.restore(two.state())
    reports.append(three.learn(batch[half:]))
    assert digest(three) == digest(one)
    np.testing.assert_array_equal(reports[1].logits, report.logits[half:])


def check_it_answers_before_any_label(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    assert learner.predict(rows(4).x).shape == (4, 0)
    report = learner.learn(whole(learner, 1))
    assert report.logits.shape == (learner.chunk, 0)
    assert report.rejected.tolist() == [False] * learner.chunk


def check_a_call_that_gets_no_memory_leaves_no_trace(make_learner: Callable[..., Learner]) -> None:
    """It fails when all is done, and labels have come that need more room: no state is further from the one before."""
    straight, learner = make_learner(), make_learner()
    attempts = Attempts(learner, lambda error: isinstance(error, MemoryError))
    for seed in range(2):
        attempts.learn(whole(learner, 2, seed=seed))
        straight.learn(whole(straight, 2, seed=seed))
    learn = learner.learn
    many = whole(learner, 12 // learner.chunk + 3, labels=33, seed=2)

    def only_once(batch: Batch) -> LearnReport:
        learner.learn = learn  # type: ignore[method-assign]
        learn(batch)
        raise MemoryError("no room")

    learner.learn = only_once  # type: ignore[method-assign]
    with pytest.raises(MemoryShortError, match=rf"{len(many)} rows at once: MemoryError: no room"):
        attempts.learn(many)
    assert digest(learner) == digest(straight)
    expected, found = straight.learn(many), attempts.learn(many)
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert digest(learner) == digest(straight)


def check_no_rows_are_no_work(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    before = digest(learner)
    report = learner.learn(rows(0))
    assert len(report.logits) == len(report.rejected) == 0
    assert digest(learner) == before


def check_the_batch_may_change_afterwards(make_learner: Callable[..., Learner]) -> None:
    one, two = make_learner(), make_learner()
    batch = whole(one, 4)
    report = one.learn(batch)
    logits = report.logits.copy()
    two.learn(whole(one, 4))
    for name in batch.__slots__:
        getattr(batch, name)[...] = 0
    assert digest(one) == digest(two)
    np.testing.assert_array_equal(report.logits, logits)
    one.learn(whole(one, 2, seed=3))
    two.learn(whole(one, 2, seed=3))
    assert digest(one) == digest(two)


def check_same_seed_same_run(make_learner: Callable[..., Learner]) -> None:
    one = make_learner(seed=3)
    torch.manual_seed(123)
    np.random.seed(123)
    two = make_learner(seed=3)
    one.learn(whole(one, 4))
    torch.rand(5)
    two.learn(whole(two, 4))
    assert digest(one) == digest(two)


def check_labels_do_not_reach_answers_before_them(make_learner: Callable[..., Learner]) -> None:
    changed_chunk = 2
    one, two = make_learner(), make_learner()
    batch = whole(one, 5)
    other = Batch.of(batch.x, batch.labels.copy(), batch.contexts)
    start = changed_chunk * one.chunk
    other.labels[start] = (other.labels[start] + 1) % 3
    first, second = one.learn(batch).logits, two.learn(other).logits
    end = start + one.chunk
    np.testing.assert_array_equal(first[:end], second[:end])
    assert not np.array_equal(first[end:], second[end:])


def check_memory_is_bounded(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 40))
    sizes = {name: a.shape for name, a in learner.state().arrays.items()}
    held = sum(learner.memory_labels().values())
    learner.learn(whole(learner, 20, seed=1))
    assert {name: a.shape for name, a in learner.state().arrays.items()} == sizes
    assert held == sum(learner.memory_labels().values()) <= 12


def check_a_non_finite_update_is_undone_and_reported(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    x = rows(6, seed=9).x
    before, memory = learner.predict(x), dict(learner.memory_labels())
    bad = whole(learner, 1, seed=2)
    bad.x[0, 0, 0] = np.nan
    bad.labels[-1] = 30
    report = learner.learn(bad)
    assert report.rejected.all()
    np.testing.assert_array_equal(learner.predict(x), before)
    assert learner.memory_labels() == memory
    assert all(np.isfinite(a).all() for a in learner.state().arrays.values())
    good = learner.learn(whole(learner, 2, seed=4))
    assert not good.rejected.any()
    assert not np.array_equal(learner.predict(x), before)


def check_a_rejected_chunk_does_not_touch_its_neighbours(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    batch = whole(learner, 3)
    batch.x[learner.chunk] = np.inf
    report = learner.learn(batch)
    assert report.rejected.tolist() == [False] * learner.chunk + [True] * learner.chunk + [False] * learner.chunk


def check_an_unseen_class_is_met(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    batch = whole(learner, 1, seed=6)
    batch.labels[:] = 37
    report = learner.learn(batch)
    assert report.logits.shape[1] == 3
    answer = learner.predict(batch.x)
    assert answer.shape == (learner.chunk, 38)
    assert np.isneginf(answer[:, 3:37]).all()
    assert np.isfinite(answer[:, 37]).all()
    with pytest.raises(ValueError, match="label row 40: expected 0 to 39"):
        learner.learn(Batch.of(batch.x, np.full(learner.chunk, 40)))


def check_what_is_served_equals_what_is_predicted(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    x = rows(20, seed=7).x
    served = learner.answering()
    answer = form_named(served.form)(served.arrays, served.settings, x)
    assert answer.dtype == learner.predict(x).dtype == np.float32
    np.testing.assert_allclose(answer, learner.predict(x), rtol=1e-5, atol=1e-5)
    json.dumps(served.settings)


def check_what_was_published_stays(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    served = learner.answering()
    before = {name: a.copy() for name, a in served.arrays.items()}
    learner.learn(whole(learner, 3, seed=1))
    for name, array in before.items():
        np.testing.assert_array_equal(served.arrays[name], array)


def check_answers_do_not_depend_on_batch_mates(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    x = rows(17, seed=8).x
    together = learner.predict(x)
    alone = np.concatenate([learner.predict(x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)


def check_only_whole_chunks_are_taken(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    if learner.chunk > 1:
        with pytest.raises(ValueError, match="whole number of chunks"):
            learner.learn(rows(learner.chunk + 1))


def check_it_learns(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 300 // learner.chunk))
    test = rows(200, seed=11)
    accuracy = (learner.predict(test.x).argmax(1) == test.labels).mean()
    assert accuracy > 0.6  # three classes


NO_EYES = ("label-law",)
"""Learners that do not look at inputs, and so cannot tell the classes of `rows` apart."""
CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


HASTENED = {"la-maml", "la-er", "sliding-look-ahead", "pool"}


@pytest.mark.parametrize("name", ALL)
def test_faster_steps_are_part_of_the_state_and_change_no_answer_of_their_own(name: str) -> None:
    """A learner without step sizes of its own says so and stays as it is."""
    learner, slow = make(name), make(name)
    batch, half = whole(learner, 8), 4 * learner.chunk
    for each in (learner, slow):
        each.learn(batch[:half])
    hasten, asked, before = getattr(learner, "hasten", lambda _: False), rows(8, seed=3).x, digest(learner)
    answers = learner.predict(asked)
    assert hasten(1.0) == (VARIANTS.get(name, (name,))[0] in HASTENED)
    assert digest(learner) == before
    if not hasten(4.0):
        assert digest(learner) == before
        return
    np.testing.assert_array_equal(learner.predict(asked), answers)
    resumed = make(name)
    resumed.restore(learner.state())
    for each in (learner, resumed, slow):
        each.learn(batch[half:])
    assert digest(learner) == digest(resumed)
    assert digest(learner) != digest(slow)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_learner(check: Callable[..., None], name: str) -> None:
    if check is check_it_learns and name in NO_EYES:
        pytest.skip(f"{name} does not look at inputs")
    check(lambda **changes: make(name, **changes))


WITHOUT_GRADIENT = ("nearest-mean", "streaming-lda")
DRAWS_NOTHING = (*WITHOUT_GRADIENT, "label-law", "quantile-ramps")
"""Learners that draw no random number in a few rows."""


@pytest.mark.parametrize("name", [name for name in ALL if name not in DRAWS_NOTHING])
def test_different_seeds_give_different_runs(name: str) -> None:
    one, two = make(name, seed=3), make(name, seed=4)
    one.learn(whole(one, 4))
    two.learn(whole(two, 4))
    assert digest(one) != digest(two)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=5, deadline=None)
@given(cuts=st.sets(st.integers(1, 5)))
def test_how_many_chunks_come_in_one_call_changes_no_bit(name: str, cuts: set[int]) -> None:
    straight, pieces = make(name), make(name)
    batch = whole(straight, 6)
    expected = straight.learn(batch)
    edges = [0, *sorted(cuts), 6]
    reports = [pieces.learn(batch[start * pieces.chunk : end * pieces.chunk]) for start, end in pairwise(edges)]
    assert digest(pieces) == digest(straight)
    width = expected.logits.shape[1]
    padded = [np.pad(r.logits, ((0, 0), (0, width - r.logits.shape[1])), constant_values=-np.inf) for r in reports]
    np.testing.assert_array_equal(np.concatenate(padded), expected.logits)


def head(learner: Learner, part: str = "slow/head.weight") -> Array:
    return learner.state().arrays[part]


ROW_BY_ROW = ("pool", "quantile-ramps", "partitions", "plastic-mlp", "label-law")
NETWORKS = [name for name in ALL if name not in (*WITHOUT_GRADIENT, *ROW_BY_ROW)]


@pytest.mark.parametrize("name", NETWORKS)
def test_meeting_a_far_label_moves_no_row_of_the_head_that_is_not_in_the_softmax(name: str) -> None:
    learner = make(name)
    learner.learn(whole(learner, 2))
    before = head(learner)
    batch = whole(learner, 1)
    batch.labels[:] = 35
    learner.learn(batch)
    assert (len(before), len(head(learner))) == (16, 64)
    np.testing.assert_array_equal(head(learner)[3:16], before[3:])
    np.testing.assert_array_equal(head(learner)[36:], head(make(name, known=40))[36:])


@pytest.mark.parametrize("name", NETWORKS)
def test_growth_alone_changes_no_old_row_and_no_answer(name: str) -> None:
    """P6: the same weights with more capacity give the same answers."""
    learner = make(name)
    learner.learn(whole(learner, 2))
    x, before, answers = rows(5, seed=3).x, head(learner), learner.predict(rows(5, seed=3).x)
    grow(learner)
    np.testing.assert_array_equal(head(learner)[:16], before)
    np.testing.assert_allclose(learner.predict(x), answers, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_when_the_head_grew_does_not_matter(name: str) -> None:
    early, late = make(name, dtype="float64"), make(name, dtype="float64")
    grow(early)
    batch = whole(late, 4)
    batch.labels[-1] = 35
    for learner in (early, late):
        learner.learn(batch)
        learner.learn(batch)
    for part, array in late.state().arrays.items():
        np.testing.assert_allclose(array, early.state().arrays[part], rtol=1e-9, atol=1e-12, err_msg=part)


def grow(learner: Any) -> None:
    """What a far label does before anything is learned from it."""
    point = learner.point
    weights = {name: learner.grown(name, part, 64) for name, part in point.weights.items()}
    learner.point = point._replace(weights=weights, active=point.active.grown(64))
