"""Meta gradients against closed forms, finite differences, and the graph that the fast form does without."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient, exact_gradient, first_order_gradient, look_ahead
from streamlearn.adapt.params import Params, Rows, clipped, global_norm, gradient, masked_cross_entropy
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings, build
from streamlearn.records import Batch, State

NETWORK = build(ModelSettings(hidden=(6, 4)), (5,), seed=1)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def quadratic(params: Params, rows: Rows) -> Tensor:
    """½‖w − x‖², whose gradient is w − x and whose Hessian is 1."""
    return 0.5 * ((params["w"] - rows.x) ** 2).sum()


def target(x: Tensor) -> Rows:
    return Rows(x, torch.zeros(0), torch.zeros(0))


@pytest.fixture
def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def vectors(count: int, draws: torch.Generator) -> list[Tensor]:
    return list(torch.randn(count, 5, dtype=torch.float64, generator=draws))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.9])
def test_exact_gradients_of_two_steps_on_a_quadratic_match_the_closed_form(rate: float, draws: torch.Generator) -> None:
    """w₁ = (1−a)w + ac₁, w₂ = (1−a)w₁ + ac₂; 𝓛 = ½(½‖w₁−q‖² + ½‖w₂−q‖²) is differentiated by hand, entry by entry."""
    w, c1, c2, q = vectors(4, draws)
    a = torch.full_like(w, rate)
    w1 = (1 - rate) * w + rate * c1
    w2 = (1 - rate) * w1 + rate * c2
    episode = Episode([target(c1), target(c2)], target(q))
    meta = exact_gradient(quadratic, {"w": w}, {"w": a}, episode, Form(second_order=True, floor=False))
    expected = 0.5 * ((1 - rate) * (w1 - q) + (1 - rate) ** 2 * (w2 - q))
    torch.testing.assert_close(meta.params["w"], expected, **TIGHT)
    dw1 = -(w - c1)
    dw2 = (1 - rate) * dw1 - (w1 - c2)
    torch.testing.assert_close(meta.inner_lr["w"], 0.5 * (dw1 * (w1 - q) + dw2 * (w2 - q)), **TIGHT)


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_first_order_gradients_on_a_quadratic_match_the_closed_form(rate: float, draws: torch.Generator) -> None:
    """∂𝓛/∂θ = (1/K) Σ Gₖ and ∂𝓛/∂α = −(1/K) Σ Gₖ ⊙ Sₖ with Gₖ = wₖ − q."""
    w, c1, c2, q = vectors(4, draws)
    w1 = w - rate * (w - c1)
    w2 = w1 - rate * (w1 - c2)
    episode = Episode([target(c1), target(c2)], target(q))
    meta = first_order_gradient(quadratic, {"w": w}, {"w": torch.full_like(w, rate)}, episode, Form())
    torch.testing.assert_close(meta.params["w"], ((w1 - q) + (w2 - q)) / 2, **TIGHT)
    effect = -((w1 - q) * (w - c1) + (w2 - q) * (w - c1 + w1 - c2)) / 2
    torch.testing.assert_close(meta.inner_lr["w"], effect, **TIGHT)


def test_with_no_step_the_look_ahead_of_rate_zero_is_plain_replay(draws: torch.Generator) -> None:
    """With rates 0, every wₖ is θ: the meta gradient is the gradient of the query, and no rate floored at 0 learns."""
    params, _, episode = problem(draws)
    zero = {name: torch.zeros_like(p) for name, p in params.items()}
    meta = first_order_gradient(loss, params, zero, episode, Form())
    torch.testing.assert_close(meta.params, gradient(loss, params, episode.query), **TIGHT)
    assert all(not g.any() for g in meta.inner_lr.values())


def loss(params: Params, rows: Rows) -> Tensor:
    return masked_cross_entropy(NETWORK.logits(params, rows.x), rows)


def problem(draws: torch.Generator) -> tuple[Params, Params, Episode]:
    """A small network, rates of both signs, three inner steps of two rows, a query of seven; one label is masked."""
    params = NETWORK.initial(16, torch.float64, "cpu")
    params = {n: p + 0.3 * torch.randn(p.shape, dtype=torch.float64, generator=draws) for n, p in params.items()}
    rates = {n: 0.2 * torch.randn(p.shape, dtype=torch.float64, generator=draws) + 0.1 for n, p in params.items()}
    mask = (torch.arange(16) < 5).unsqueeze(0)

    def rows(count: int) -> Rows:
        x = torch.randn(count, 5, dtype=torch.float64, generator=draws)
        return Rows(x, torch.randint(0, 5, (count,), generator=draws), mask)

    return params, rates, Episode([rows(2) for _ in range(3)], rows(7))


FLOORLESS = {"second_order": True, "floor": False}


@pytest.mark.parametrize(
    "form",
    [
        Form(second_order=True),
        Form(**FLOORLESS),
        Form(**FLOORLESS, clip=0.05),
        Form(**FLOORLESS, clip_norm=0.1),
        Form(second_order=True, last_only=True),
    ],
)
def test_exact_gradients_match_central_differences(form: Form, draws: torch.Generator) -> None:
    params, rates, episode = problem(draws)
    meta = exact_gradient(loss, params, rates, episode, form)
    for which, grads in ((0, meta.params), (1, meta.inner_lr)):
        direction = {n: torch.randn(p.shape, dtype=torch.float64, generator=draws) for n, p in params.items()}
        analytic = sum(float((grads[n] * d).sum()) for n, d in direction.items())
        assert analytic == pytest.approx(central_difference(params, rates, episode, form, (which, direction)), rel=2e-6)


def central_difference(params: Params, rates: Params, episode: Episode, form: Form, along: tuple[int, Params]) -> float:
    """Slope of the meta loss along a direction of parameters (0) or rates (1)."""
    (which, direction), step = along, 1e-6

    def at(distance: float) -> float:
        moved = [dict(params), dict(rates)]
        moved[which] = {n: p + distance * direction[n] for n, p in moved[which].items()}
        return meta_loss(moved[0], moved[1], episode, form)

    return (at(step) - at(-step)) / (2 * step)


def meta_loss(params: Params, rates: Params, episode: Episode, form: Form) -> float:
    """The definition, written out."""
    scores, fast, norm = [], dict(params), form.clip_norm
    for rows in episode.support:
        leaves = {n: p.clone().requires_grad_() for n, p in fast.items()}
        grads = torch.autograd.grad(loss(leaves, rows), list(leaves.values()))
        size = float(torch.cat([g.flatten() for g in grads]).norm())
        for (name, p), g in zip(fast.items(), grads, strict=True):
            rate = rates[name].clamp(min=0) if form.floor else rates[name]
            bounded = g if norm is None else g * min(1.0, norm / (size + 1e-6))
            fast[name] = p - rate * (bounded if form.clip is None else bounded.clamp(-form.clip, form.clip))
        scores.append(float(loss(fast, episode.query)))
    return scores[-1] if form.last_only else sum(scores) / len(scores)


@pytest.mark.parametrize("form", [Form(), Form(floor=False), Form(clip=0.05), Form(clip_norm=0.1), Form(last_only=True)])
def test_first_order_gradients_equal_the_graph_with_inner_gradients_cut_off(form: Form, draws: torch.Generator) -> None:
    """The slow obvious version: keep the graph, but take the inner gradients as constants."""
    params, rates, episode = problem(draws)
    leaves = [{n: p.clone().requires_grad_() for n, p in tree.items()} for tree in (params, rates)]
    inner = {n: torch.relu(r) if form.floor else r for n, r in leaves[1].items()}

    def constant_gradient(params: Params, rows: Rows) -> Params:
        return gradient(loss, params, rows)

    path = look_ahead(constant_gradient, leaves[0], inner, episode.support, form)
    scored = path.fast[-1:] if form.last_only else path.fast
    score = torch.stack([loss(fast, episode.query) for fast in scored]).mean()
    grads = torch.autograd.grad(score, [*leaves[0].values(), *leaves[1].values()])
    expected = MetaGradient(*(dict(zip(params, part, strict=True)) for part in (grads[: len(params)], grads[len(params) :])))
    meta = first_order_gradient(loss, params, rates, episode, form)
    torch.testing.assert_close(meta.params, expected.params, **TIGHT)
    torch.testing.assert_close(meta.inner_lr, expected.inner_lr, **TIGHT)


def test_first_order_is_not_exact() -> None:
    """The switch does something: on a curved loss the two orders differ."""
    params, rates, episode = problem(torch.Generator().manual_seed(3))
    first = first_order_gradient(loss, params, rates, episode, Form())
    exact = exact_gradient(loss, params, rates, episode, Form(second_order=True))
    gap = {name: g - first.params[name] for name, g in exact.params.items()}
    assert global_norm(gap) > 1e-2 * global_norm(exact.params)


def test_la_maml_moves_weights_by_the_rates_it_has_just_learned() -> None:
    """θ ← θ − max(α − η∂α, 0) ⊙ ∂θ, by hand; an old α of 0.1 would give another answer."""
    one = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    rates = {"w": torch.tensor([0.1, 0.1], dtype=torch.float64)}
    meta = MetaGradient(
        {"w": torch.tensor([0.3, 0.4], dtype=torch.float64)}, {"w": torch.tensor([-0.5, 0.5], dtype=torch.float64)}
    )
    slow, learned = outer.la_maml(one, rates, meta, meta_lr=0.4, clip_norm=10.0)
    torch.testing.assert_close(learned["w"], torch.tensor([0.3, -0.1], dtype=torch.float64), **TIGHT)
    torch.testing.assert_close(slow["w"], torch.tensor([1 - 0.3 * 0.3, 1.0], dtype=torch.float64), **TIGHT)


def test_sync_and_c_maml_move_weights_by_one_rate() -> None:
    one, rates = {"w": torch.ones(2)}, {"w": torch.full((2,), 0.1)}
    meta = MetaGradient({"w": torch.tensor([0.3, 0.4])}, {"w": torch.tensor([-0.5, 0.5])})
    slow, learned = outer.sync(one, rates, meta, meta_lr=0.4, clip_norm=10.0, outer_lr=0.5)
    torch.testing.assert_close(slow["w"], torch.tensor([0.85, 0.8]))
    torch.testing.assert_close(learned["w"], torch.tensor([0.3, -0.1]))
    torch.testing.assert_close(outer.c_maml(one, meta, clip_norm=10.0, outer_lr=0.5)["w"], torch.tensor([0.85, 0.8]))


def test_gradients_are_clipped_to_their_norm_together() -> None:
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert global_norm(grads).item() == pytest.approx(5.0)
    assert global_norm(clipped(grads, 2.0)).item() == pytest.approx(2.0, rel=1e-5)
    torch.testing.assert_close(clipped(grads, 6.0), grads)


def test_a_masked_label_gets_no_probability_and_no_gradient(draws: torch.Generator) -> None:
    params, _, episode = problem(draws)
    grads = partial(gradient, loss)(params, episode.query)
    assert not grads["head.weight"][5:].any()
    assert grads["head.weight"][:5].all()
    logits = NETWORK.logits(params, episode.query.x)[:, :5]
    expected = torch.nn.functional.cross_entropy(logits, episode.query.y)
    torch.testing.assert_close(loss(params, episode.query), expected, **TIGHT)


def test_rows_keep_their_own_masks_when_taken_and_joined() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True], [True, False, True]])
    rows = Rows(torch.arange(3.0).unsqueeze(1), torch.tensor([0, 1, 2]), mask)
    for taken, order in ((rows.at(torch.tensor([2, 0])), [2, 0]), (rows.at(slice(1, 3)), [1, 2])):
        assert taken.y.tolist() == order
        assert torch.equal(taken.mask, mask[order])
    assert torch.equal(Rows.joined([rows, rows.at(slice(1, 2))]).mask, mask[[0, 1, 2, 1]])
    single = [rows.at(slice(row, row + 1)) for row in (0, 1)]
    assert torch.equal(Rows.joined(single).mask, mask[:2]), "masks of one row each, and not one for both"
    shared = Rows(rows.x, rows.y, mask[:1])
    assert torch.equal(Rows.joined([shared, shared]).mask, mask[:1])


@pytest.mark.parametrize("kernel", ["torch", "numba", "static"])
def test_alignment_is_measured_every_so_many_chunks_and_says_how_old_it_is(kernel: Any) -> None:
    """Chunks 2, 5, 8, … of three; measuring moves nothing, and a restored learner keeps the schedule."""
    task, random = Task((4,), model=ModelSettings(hidden=(6,))), np.random.default_rng(0)
    rare, often = (LaMAML(LaMAML.Settings(alignment_every=n, kernel=kernel), task) for n in (3, 1))
    batch = Batch.of(random.normal(size=(90, 4)), np.arange(90) % 3)
    measured, ages = [], []
    for chunk in range(9):
        if chunk == 5:
            state = rare.state()
            rare = LaMAML(LaMAML.Settings(alignment_every=3, kernel=kernel), task)
            rare.restore(state)
        rows = batch[10 * chunk : 10 * chunk + 10]
        told, each = rare.learn(rows).measures, often.learn(rows).measures
        if "gradient_alignment" in told:
            measured.append(chunk + 1)
            assert told["gradient_alignment"] == each["gradient_alignment"]
        ages.append(told["gradient_alignment_age_chunks"])
    assert measured == [2, 5, 8]
    np.testing.assert_array_equal(ages, [np.nan, 0, 1, 2, 0, 1, 2, 0, 1])
    for name, array in often.state().arrays.items():
        np.testing.assert_array_equal(rare.state().arrays[name], array)


def test_labels_of_another_context_neither_compete_nor_move() -> None:
    """Multi-head: rows of context 7 learn among its labels 0 and 1; the head rows of context 8, labels 2 and 3, stay."""
    options = LaMAML.Settings(max_contexts=2, inner_chunks=5)
    learner = LaMAML(options, Task((4,), model=ModelSettings(hidden=(6,))))
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 4))
    even = np.arange(40) % 2
    learner.learn(Batch.of(x[:20], 2 + even[:20], contexts=np.full(20, 8)))
    before = learner.state().arrays["slow/head.weight"]
    learner = restarted_without_memory(learner, options)
    report = learner.learn(Batch.of(x[20:], even[20:], contexts=np.full(20, 7)))
    after = learner.state().arrays["slow/head.weight"]
    np.testing.assert_array_equal(after[2:4], before[2:4])
    assert not np.array_equal(after[:2], before[:2])
    assert np.isneginf(report.logits[10:, 2:]).all()
    assert learner.context_labels(7) == [0, 1]
    assert learner.context_labels(8) == [2, 3]


def restarted_without_memory(learner: LaMAML, options: LaMAML.Settings) -> LaMAML:
    """The same, with nothing to replay."""
    state, empty = learner.state(), LaMAML(options, learner.task).state()
    arrays = {n: empty.arrays[n] if n.startswith("memory/") else a for n, a in state.arrays.items()}
    fresh = LaMAML(options, learner.task)
    fresh.restore(State(arrays, {**state.values, "memory": empty.values["memory"]}))
    return fresh
