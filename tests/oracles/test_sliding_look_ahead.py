"""The sliding look-ahead against closed forms, finite differences, and a slow obvious version of the whole learner."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamlearn.adapt import outer
from streamlearn.adapt.fast import Pace, fast_step
from streamlearn.adapt.inner import Episode, Form, MetaGradient, first_order_gradient
from streamlearn.adapt.params import Params, Rows, gradient, masked_cross_entropy
from streamlearn.adapt.recall import Recall, recall_gap
from streamlearn.errors import CheckpointError
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings, build, mixed_seed
from streamlearn.records import Batch
from streamlearn.serving.forms import form_named

TIGHT = {"rtol": 1e-12, "atol": 1e-12}
TASK = Task((5,), seed=3, model=ModelSettings(hidden=(6, 4)), dtype="float64")


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("leak", "share"), [(0.02, 0.5), (1.0, 1.0), (0.3, 0.0)])
def test_a_fast_step_on_a_quadratic_matches_the_closed_form(leak: float, share: float) -> None:
    """For ½‖w − c‖² and one rate a: w' = (1 − σa)(w + ρ(θ − w)) + σa·c."""
    w, slow, c, rates = doubles(4, 7)

    def quadratic(params: Params, rows: Rows) -> Tensor:
        return 0.5 * ((params["w"] - rows.x) ** 2).sum()

    row = Rows(c, torch.zeros(0), torch.zeros(0))
    pace = Pace(leak, share)
    fast = fast_step(quadratic, {"w": w}, row, slow={"w": slow}, rates={"w": rates}, pace=pace)["w"]
    torch.testing.assert_close(fast, (1 - share * rates) * (w + leak * (slow - w)) + share * rates * c, **TIGHT)


def test_a_fast_step_goes_no_further_than_its_bound_lets_it() -> None:
    w, c = doubles(2, 7)
    pace = Pace(0.1, 1.0, clip_norm=0.5)
    row = Rows(c, torch.zeros(0), torch.zeros(0))

    def pull(params: Params, rows: Rows) -> Tensor:
        return 100 * ((params["w"] - rows.x) ** 2).sum()

    fast = fast_step(pull, {"w": w}, row, slow={"w": w}, rates={"w": torch.ones(7, dtype=torch.float64)}, pace=pace)["w"]
    torch.testing.assert_close(fast, w + 0.5 * (c - w) / (c - w).norm(), rtol=1e-6, atol=1e-6)


def test_the_recall_gap_is_the_mean_square_over_labels_that_were_known() -> None:
    logits = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]])
    stored = torch.tensor([[0.0, 4.0, 0.0], [6.0, 0.0, 0.0]])
    known = torch.tensor([[True, True, False], [True, False, False]])
    assert recall_gap(logits, Recall(stored, known)).item() == pytest.approx((1 + 4 + 9) / 3)
    assert recall_gap(logits, Recall(stored, ~known & known)).item() == 0.0


def test_the_meta_gradient_with_stored_answers_matches_central_differences() -> None:
    """First order takes inner gradients as constants: 𝓛(θ, α) = mean over k of score(θ − α ⊙ Sₖ), with Sₖ held fixed."""
    network = build(TASK.model, TASK.shape, seed=1)
    params = {n: p + 0.3 * doubles(*p.shape, seed=1) for n, p in network.initial(16, torch.float64, "cpu").items()}
    rates = {n: 0.2 * doubles(*p.shape, seed=2).abs() for n, p in params.items()}
    mask = (torch.arange(16) < 5).unsqueeze(0)
    rows = Rows(doubles(7, 5, seed=3), torch.randint(0, 5, (7,), generator=torch.Generator().manual_seed(4)), mask)
    recall = Recall(doubles(3, 16, seed=5), (torch.arange(16) < 4).expand(3, 16))

    def loss(params: Params, rows: Rows) -> Tensor:
        return masked_cross_entropy(network.logits(params, rows.x), rows)

    def score(params: Params, rows: Rows) -> Tensor:
        logits = network.logits(params, rows.x)
        return masked_cross_entropy(logits, rows) + 0.7 * (logits[:3, :4] - recall.logits[:, :4]).square().mean()

    learner = SlidingLookAhead(SlidingLookAhead.Settings(recall=0.7), TASK)
    learner.network = network
    support = [rows.at(slice(i, i + 1)) for i in (5, 3, 6, 4)]
    meta = first_order_gradient(loss, params, rates, Episode(support, rows, learner._score(recall)), Form(floor=False))
    sums, fast = [], params
    total = {n: torch.zeros_like(p) for n, p in params.items()}
    for row in support:
        total = {n: t + gradient(loss, fast, row)[n] for n, t in total.items()}
        fast = {n: p - rates[n] * total[n] for n, p in params.items()}
        sums.append(total)

    def meta_loss(params: Params, rates: Params) -> float:
        return float(np.mean([float(score({n: p - rates[n] * s[n] for n, p in params.items()}, rows)) for s in sums]))

    step = 1e-6
    for seed in range(3):
        along = {n: doubles(*p.shape, seed=10 + seed) for n, p in params.items()}
        up, down = ({n: p + sign * step * along[n] for n, p in params.items()} for sign in (1, -1))
        slope = (meta_loss(up, rates) - meta_loss(down, rates)) / (2 * step)
        assert sum(float((meta.params[n] * d).sum()) for n, d in along.items()) == pytest.approx(slope, rel=1e-6)
        up, down = ({n: r + sign * step * along[n] for n, r in rates.items()} for sign in (1, -1))
        slope = (meta_loss(params, up) - meta_loss(params, down)) / (2 * step)
        assert sum(float((meta.inner_lr[n] * d).sum()) for n, d in along.items()) == pytest.approx(slope, rel=1e-6)


def test_a_rate_at_zero_is_raised_but_never_lowered_and_does_not_count_when_clipping() -> None:
    slow = {"w": torch.ones(3, dtype=torch.float64)}
    rates = {"w": torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64)}
    meta = MetaGradient(
        {"w": torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)}, {"w": torch.tensor([-3.0, 30.0, 4.0], dtype=torch.float64)}
    )
    moved, learned = outer.revived(slow, rates, meta, meta_lr=0.1, clip_norm=5.0)  # the norm of (−3, 4) is 5: not clipped
    torch.testing.assert_close(learned["w"], torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moved["w"], torch.tensor([0.7, 1.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)


def stream(count: int, seed: int = 0) -> Batch:
    """Labels arrive one after another, 18 of them, so that the head grows on the way."""
    random = np.random.default_rng(seed)
    y = np.where(np.arange(count) % 4 == 0, np.arange(count) // 4 % 18, 0)
    y = np.maximum(y, random.integers(0, 18, count) % (np.arange(count) // 4 + 1))
    return Batch.of(random.normal(size=(count, 5)) + 0.3 * y[:, None], y)


class Obvious:
    """The learner again, row after row, as sentences: autograd, lists, and two sets of random numbers."""

    def __init__(self, own: SlidingLookAhead.Settings) -> None:
        self.own, self.network = own, build(TASK.model, TASK.shape, seed=TASK.seed)
        self.slow = self.network.initial(32, torch.float64, "cpu")
        self.fast = self.mean = self.slow
        self.rates = {n: torch.full_like(p, own.inner_lr) for n, p in self.slow.items()}
        self.orders = torch.Generator().manual_seed(mixed_seed(TASK.seed, 2))
        self.draws = torch.Generator().manual_seed(mixed_seed(TASK.seed, 3))
        self.seen, self.labels = 0, 0
        self.window: list[tuple[Tensor, int]] = []
        self.memory: list[tuple[Tensor, int, Tensor]] = []

    def logits(self, params: Params, x: Tensor) -> Tensor:
        return self.network.logits(params, x.unsqueeze(0))[0, : self.labels]

    def loss(self, params: Params, row: tuple[Any, ...]) -> Tensor:
        return -torch.log_softmax(self.logits(params, row[0]), 0)[row[1]]

    def grads(self, loss: Any, params: Params) -> Params:
        leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
        return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))

    def bounded(self, grads: Params) -> Params:
        norm = float(torch.cat([g.flatten() for g in grads.values()]).norm())
        return {n: g * min(1.0, (self.own.inner_clip_norm or np.inf) / (norm + 1e-6)) for n, g in grads.items()}

    def chances(self, count: int) -> list[float]:
        return torch.rand(count, dtype=torch.float64, generator=self.draws).tolist()

    def learn(self, x: Tensor, y: int) -> None:
        self.labels = max(self.labels, y + 1)
        own, row = self.own, (x, y)
        at = {n: w + own.leak * (self.slow[n] - w) for n, w in self.fast.items()}
        g = self.bounded(self.grads(lambda p: self.loss(p, row), at))
        self.fast = {n: w - own.fast_share * self.rates[n] * g[n] for n, w in at.items()}
        self.window = [*self.window, row][-own.window :]
        if (self.seen + 1) % own.update_every == 0:
            self.look_ahead()
        keep = min(own.averaging, (1 + self.seen) / (10 + self.seen))
        self.mean = {n: keep * m + (1 - keep) * self.slow[n] for n, m in self.mean.items()}
        self.seen += 1
        item = (x, y, self.logits(self.slow, x))
        slot = self.seen - 1 if self.seen <= own.memory.rows else None
        chance = self.chances(1)[0]
        if slot is not None:
            self.memory.append(item)
        elif int(chance * self.seen) < own.memory.rows:
            self.memory[int(chance * self.seen)] = item

    def replayed(self) -> list[tuple[Tensor, int, Tensor]]:
        left = list(range(len(self.memory)))  # a shuffle from the front
        for i, chance in enumerate(self.chances(self.own.replay_rows)[: len(left)]):
            j = i + int(chance * (len(left) - i))
            left[i], left[j] = left[j], left[i]
        return [self.memory[i] for i in left[: self.own.replay_rows]]

    def score(self, params: Params, replayed: list[tuple[Tensor, int, Tensor]]) -> Tensor:
        losses = [self.loss(params, row) for row in [*replayed, *self.window]]
        gaps = [(self.logits(params, x)[: len(stored)] - stored) ** 2 for x, _, stored in replayed]
        return torch.stack(losses).mean() + (self.own.recall * torch.cat(gaps).mean() if gaps else 0.0)

    def look_ahead(self) -> None:
        own = self.own
        order = torch.rand(len(self.window), dtype=torch.float64, generator=self.orders).argsort().tolist()
        replayed = self.replayed()
        fast = self.slow
        total = {n: torch.zeros_like(p) for n, p in fast.items()}
        meta, effect = dict(total), dict(total)
        for i in order:
            g = self.bounded(self.grads(lambda p, i=i: self.loss(p, self.window[i]), fast))
            total = {n: t + g[n] for n, t in total.items()}
            fast = {n: w - self.rates[n] * g[n] for n, w in fast.items()}
            judged = self.grads(lambda p: self.score(p, replayed), fast)
            meta = {n: m + judged[n] / len(order) for n, m in meta.items()}
            effect = {n: e - judged[n] * total[n] / len(order) for n, e in effect.items()}
        effect = {n: torch.where((self.rates[n] == 0) & (e > 0), 0.0, e) for n, e in effect.items()}
        for grads in (meta, effect):
            norm = float(torch.cat([g.flatten() for g in grads.values()]).norm())
            scale = min(1.0, own.clip_norm / (norm + 1e-6))
            grads.update({n: g * scale for n, g in grads.items()})
        self.rates = {n: (r - own.meta_lr * effect[n]).clamp(min=0) for n, r in self.rates.items()}
        self.slow = {n: p - self.rates[n] * meta[n] for n, p in self.slow.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 3, "update_every": 1, "replay_rows": 7, "meta_lr": 3.0, "clip_norm": 0.3},
        {"inner_clip_norm": 0.4},
        {"averaging": 0.8},
        {"averaging": 0.0},
    ],
)
def test_the_learner_equals_the_slow_obvious_version(options: dict[str, Any]) -> None:
    own = SlidingLookAhead.Settings(memory={"rows": 9}, **options)
    learner, obvious, batch = SlidingLookAhead(own, TASK), Obvious(own), stream(100)
    learner.learn(batch)
    for x, y in zip(torch.tensor(batch.x, dtype=torch.float64), batch.labels.tolist(), strict=True):
        obvious.learn(x, y)
    found = {"slow": obvious.slow, "rates": obvious.rates, "fast": obvious.fast}
    found |= {"mean": obvious.mean} if own.averaging else {}
    assert set(learner.point.weights) == set(found)
    for name, expected in found.items():
        for part, tensor in learner.point.weights[name].items():
            torch.testing.assert_close(tensor, expected[part], rtol=1e-10, atol=1e-12, msg=f"{name} {part}")
    used = learner.point.weights["rates"]["body.layers.0.weight"]
    assert options.get("meta_lr") is None or bool((used == 0).any())


def test_each_row_is_answered_after_the_rows_before_it() -> None:
    """In one call or row by row: the answer to a row is what `predict` says just before it is learned."""
    one, two = (SlidingLookAhead(SlidingLookAhead.Settings(), TASK) for _ in range(2))
    batch = stream(40)
    logits = one.learn(batch).logits
    for i in range(len(batch)):
        answer = two.predict(batch.x[i : i + 1])
        np.testing.assert_array_equal(logits[i : i + 1, : answer.shape[1]], answer)
        two.learn(batch[i : i + 1])


def test_fast_weights_that_ran_away_start_again_from_the_slow_ones() -> None:
    learner, batch = SlidingLookAhead(SlidingLookAhead.Settings(), TASK), stream(21)
    learner.learn(batch[:20])
    for layer in (0, 1):
        learner.point.weights["fast"][f"body.layers.{layer}.weight"][...] = 1e300
    slow, rates = learner.point.weights["slow"], learner.point.weights["rates"]
    report = learner.learn(batch[20:])
    assert not report.rejected.any()
    row = learner._rows(learner._columns(batch[20:]))
    g = gradient(learner._loss, slow, row)
    expected = {n: p - learner.settings.fast_share * rates[n] * g[n] for n, p in slow.items()}
    torch.testing.assert_close(learner.point.weights["fast"], expected, **TIGHT)


@pytest.mark.parametrize(("averaging", "ever"), [(0.9, "mean"), (0.0, "slow")])
def test_questions_about_all_that_was_learned_are_answered_by_the_mean_of_the_slow_weights(averaging: float, ever: str) -> None:
    for model, form in ((ModelSettings(hidden=(6,)), "mlp"), (ModelSettings(name="conv", channels=2, hidden=(4,)), "torch")):
        learner = SlidingLookAhead(SlidingLookAhead.Settings(averaging=averaging), Task((4, 4), model=model))
        random = np.random.default_rng(0)
        batch = Batch.of(random.normal(size=(40, 4, 4)), random.integers(0, 3, 40))
        learner.learn(batch)
        served = learner.answering()
        assert served.form == form
        for about, weights in (("now", "fast"), ("auto", "fast"), ("ever", ever)):
            answer = form_named(form)(served.arrays, {**served.settings, "about": about}, batch.x)
            with torch.no_grad():
                expected = learner.network.logits(learner.point.weights[weights], torch.tensor(batch.x))[:, :3]
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(learner.predict(batch.x, about=about), expected, rtol=1e-5, atol=1e-5)
        assert not np.allclose(learner.predict(batch.x, about="ever"), learner.predict(batch.x, about="now"))


def test_a_checkpoint_without_a_mean_is_refused_where_one_is_kept_and_one_with_it_is_taken_where_none_is() -> None:
    without, kept = (SlidingLookAhead(SlidingLookAhead.Settings(averaging=averaging), TASK) for averaging in (0.0, 0.9))
    for learner in (without, kept):
        learner.learn(stream(10))
    with pytest.raises(CheckpointError, match=r"no mean of the slow weights: .* learner.averaging is not 0; set it to 0"):
        kept.restore(without.state())
    without.restore(kept.state())
    assert set(without.point.weights) == {"slow", "rates", "fast"}


def test_a_checkpoint_of_a_wider_window_is_refused() -> None:
    wide = SlidingLookAhead(SlidingLookAhead.Settings(window=6), TASK)
    wide.learn(stream(10))
    narrow = SlidingLookAhead(SlidingLookAhead.Settings(window=3), TASK)
    with pytest.raises(CheckpointError, match=r"shape \(5, 5\) for 'x' of the newest rows: expected at most 2"):
        narrow.restore(wide.state())
