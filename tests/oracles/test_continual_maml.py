"""Continual-MAML without its parts is what torch has; with them it notices a change. The flow is a limit of small steps."""

import numpy as np
import pytest
import torch

from streamlearn.learners.continual_maml import ContinualMAML
from streamlearn.learners.gradient_flow import GradientFlow
from streamlearn.learners.task import Task
from streamlearn.memory import Balanced
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Batch

CHUNK = 12


def learner(**own) -> ContinualMAML:
    settings = ContinualMAML.Settings(**{"chunk": CHUNK, **own})
    return ContinualMAML(settings, Task(shape=(6,), known=3, model=ModelSettings(hidden=(9,)), dtype="float64"))


def rows(chunks: int, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, chunks * CHUNK)
    x = 0.5 * random.normal(size=(len(y), 6))
    x[np.arange(len(y)), y] += 3.0
    return x.astype(np.float32), y


def test_without_fast_steps_and_detection_it_is_online_adam():
    """torch.optim.Adam on the same network, one step per chunk."""
    ours = learner(inner_steps=0, switch_share=None, outer_lr=0.01)
    first = {n: torch.tensor(a) for n, a in ours.state().under("slow").arrays.items()}
    leaves = {n: p.clone().requires_grad_() for n, p in first.items()}
    adam = torch.optim.Adam(list(leaves.values()), lr=0.01)
    x, y = rows(6)
    for start in range(0, len(y), CHUNK):
        h = torch.relu(
            torch.tensor(x[start : start + CHUNK]).double() @ leaves["body.layers.0.weight"] + leaves["body.layers.0.bias"]
        )
        logits = (h @ leaves["head.weight"].T + leaves["head.bias"])[:, :3]
        adam.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor(y[start : start + CHUNK])).backward()
        adam.step()
    ours.learn(Batch.of(x, y))
    for name, array in ours.state().under("slow").arrays.items():
        np.testing.assert_allclose(
            array[:3] if "head" in name else array,
            leaves[name].detach().numpy()[: len(array)][: 3 if "head" in name else None],
            rtol=1e-10,
            atol=1e-12,
        )


def test_slow_weights_take_the_gradient_through_the_step_on_the_chunk_before():
    """Finite differences of "one step on chunk 0, then ask chunk 1" give the first direction of Adam: its sign."""
    ours = learner(inner_steps=1, inner_lr=0.4, switch_share=None, outer_lr=1e-3)
    x, y = rows(2)
    ours.learn(Batch.of(x[:CHUNK], y[:CHUNK]))
    before = ours.state()
    slow = {n: torch.tensor(a) for n, a in before.under("slow").arrays.items()}

    def loss(p: dict[str, torch.Tensor], part: slice) -> torch.Tensor:
        h = torch.relu(torch.tensor(x[part]).double() @ p["body.layers.0.weight"] + p["body.layers.0.bias"])
        logits = (h @ p["head.weight"].T + p["head.bias"])[:, :3]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(y[part]))

    def after(bias: torch.Tensor) -> float:
        p = {n: t.clone().requires_grad_() for n, t in {**slow, "body.layers.0.bias": bias}.items()}
        grads = torch.autograd.grad(loss(p, slice(0, CHUNK)), list(p.values()))
        fast = {n: (t - 0.4 * g).detach() for (n, t), g in zip(p.items(), grads, strict=True)}
        return float(loss(fast, slice(CHUNK, None)))

    bias = slow["body.layers.0.bias"]
    steps = 1e-5 * torch.eye(len(bias), dtype=torch.float64)
    slopes = np.array([(after(bias + s) - after(bias - s)) / 2e-5 for s in steps])
    ours.learn(Batch.of(x[CHUNK:], y[CHUNK:]))
    mean = ours.state().under("mean").arrays["body.layers.0.bias"]
    found = (mean - 0.9 * before.under("mean").arrays["body.layers.0.bias"]) / 0.1
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-9)


def test_a_permutation_of_labels_is_noticed_at_its_chunk_and_nowhere_else():
    ours = learner(inner_steps=8, inner_lr=0.2, outer_lr=0.01)
    x, y = rows(40)
    y[20 * CHUNK :] = (y[20 * CHUNK :] + 1) % 3
    flags = [
        ours.learn(Batch.of(x[s : s + CHUNK], y[s : s + CHUNK])).measures["context_switch"] for s in range(0, len(y), CHUNK)
    ]
    assert np.flatnonzero(flags[5:]).tolist() == [15]


def test_a_new_context_leaves_the_slow_weights_alone():
    ours = learner(inner_steps=8, inner_lr=0.2, outer_lr=0.01)
    x, y = rows(21)
    y[20 * CHUNK :] = (y[20 * CHUNK :] + 1) % 3
    ours.learn(Batch.of(x[: 20 * CHUNK], y[: 20 * CHUNK]))
    before = ours.state().under("slow").arrays
    assert ours.learn(Batch.of(x[20 * CHUNK :], y[20 * CHUNK :])).measures["context_switch"] == 1.0
    for name, array in ours.state().under("slow").arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_expected_moves_the_slow_weights_less():
    """Update modulation scales the gradient by 1 − exp(−s ℓ), which Adam's first moment shows."""
    plain, modulated = learner(switch_share=None), learner(switch_share=None, surprise=0.5)
    x, y = rows(1)
    loss = -np.log(np.exp(plain.predict(x)[np.arange(CHUNK), y]) / np.exp(plain.predict(x)).sum(1)).mean()
    for each in (plain, modulated):
        each.learn(Batch.of(x, y))
    ratio = modulated.state().under("mean").arrays["head.bias"][0] / plain.state().under("mean").arrays["head.bias"][0]
    assert ratio == pytest.approx(1 - np.exp(-0.5 * loss), rel=1e-5)


def flow(**own) -> GradientFlow:
    settings = GradientFlow.Settings(**{"tolerance": 1e-9, **own})
    return GradientFlow(settings, Task(shape=(6,), known=3, model=ModelSettings(hidden=(9,)), dtype="float64"))


def test_the_flow_does_not_depend_on_the_order_of_what_is_held():
    one, two = flow(), flow()
    x, y = rows(2)
    one.learn(Batch.of(x, y))
    two.learn(Batch.of(x[::-1].copy(), y[::-1].copy()))
    np.testing.assert_allclose(one.predict(x), two.predict(x), rtol=1e-6, atol=1e-8)


def test_a_long_flow_ends_where_small_steps_of_gradient_descent_do():
    ours = flow(duration=3.0)
    first = ours.state().under("slow").arrays
    x, y = rows(1)
    w, targets = first["head.weight"][:3].copy(), np.eye(3)[y]
    for _ in range(30_000):
        p = np.exp(x @ w.T)
        w -= 1e-4 * (p / p.sum(1, keepdims=True) - targets).T @ x / len(x)
    ours.learn(Batch.of(x, y))
    np.testing.assert_allclose(ours.state().under("slow").arrays["head.weight"][:3], w, rtol=2e-3, atol=2e-4)


def test_the_memory_holds_rare_labels_and_every_newest_row():
    memory = Balanced({"label": torch.zeros((), dtype=torch.int64)}, 9, torch.Generator().manual_seed(0))
    for label in [0] * 50 + [1] * 3 + [2] * 50:
        memory.offer({"label": torch.tensor([label])})
        assert label in memory.labels()
    assert memory.labels()[1] == 3
    assert max(memory.labels().values()) - min(memory.labels().values()) <= 2


def test_an_offer_to_a_full_balanced_memory_can_be_taken_back():
    memory = Balanced({"label": torch.zeros((), dtype=torch.int64)}, 4, torch.Generator().manual_seed(0))
    memory.offer({"label": torch.tensor([0, 0, 0, 1, 2])})
    before = memory.columns["label"].clone()
    memory.undo(memory.offer({"label": torch.tensor([5, 6])}))
    assert torch.equal(memory.columns["label"], before)
