"""Gradient kernels of meta-training against what we did not write: finite differences, closed forms, dense solves, scipy."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import root
from torch import Tensor

from streamlearn.adapt.adam import adam, still
from streamlearn.adapt.flow import flow_gradient, flowed
from streamlearn.adapt.implicit import Proximal, Solved, anchored, conjugate_gradients, implicit_gradient, implicit_meta
from streamlearn.adapt.ode import integrate
from streamlearn.adapt.params import Params, Rows
from streamlearn.adapt.unrolled import Lessons, Meta, Parts, Plan, first_order, interpolated, second_order
from streamlearn.meta.partition import HEAD, TRUNK, WHOLE, parts
from streamlearn.models.classifier import ModelSettings, build

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tanh_net(params: Params, rows: Rows) -> Tensor:
    """Written out, smooth."""
    hidden = torch.tanh(rows.x @ params["a"])
    return torch.nn.functional.cross_entropy(hidden @ params["head.weight"].T + params["head.bias"], rows.y)


def fixture(episodes: int = 3) -> tuple[Params, Lessons]:
    g = seeded()
    params = {
        "a": torch.randn(4, 5, generator=g, dtype=DOUBLE),
        "head.weight": torch.randn(3, 5, generator=g, dtype=DOUBLE),
        "head.bias": torch.randn(3, generator=g, dtype=DOUBLE),
    }
    x = torch.randn(episodes, 10, 4, generator=g, dtype=DOUBLE)
    y = torch.randint(0, 3, (episodes, 10), generator=g)
    return params, Lessons(x[:, :6], y[:, :6], x[:, 6:], y[:, 6:])


def partition(*moves: str) -> Parts:
    return Parts(lambda p: {n: v for n, v in p.items() if n.startswith(moves)}, lambda _, x: x, tanh_net)


PLAN = Plan(0.3, (slice(0, 2), slice(2, 4), slice(4, 6)))
PROXIMAL = Proximal(strength=2.0, rate=0.2, steps=300, cg_steps=60, tolerance=1e-12)


def after_adaptation(params: Params, lessons: Lessons, moves: tuple[str, ...]) -> float:
    """Adapt, then ask: a plain loop over episodes and steps with autograd's gradients."""
    total = 0.0
    for sx, sy, qx, qy in zip(*lessons, strict=True):
        fast = {n: p.clone().requires_grad_(n.startswith(moves)) for n, p in params.items()}
        for rows in PLAN.steps:
            moving = [n for n in fast if n.startswith(moves)]
            loss = tanh_net(fast, Rows(sx[rows], sy[rows], torch.ones(1, 1)))
            grads = torch.autograd.grad(loss, [fast[n] for n in moving])
            stepped = {n: (fast[n] - PLAN.rate * g).detach().requires_grad_() for n, g in zip(moving, grads, strict=True)}
            fast = {**fast, **stepped}
        total += float(tanh_net(fast, Rows(qx, qy, torch.ones(1, 1))).detach())
    return total / len(lessons.support_y)


def differences(value, params: Params, step: float = 1e-5) -> Params:
    """Central finite differences of `value(params)`, entry by entry."""
    found = {name: torch.zeros_like(p) for name, p in params.items()}
    for name, p in params.items():
        for i in range(p.numel()):
            ends = []
            for way in (step, -step):
                moved = p.clone()
                moved.view(-1)[i] += way
                ends.append(value({**params, name: moved}))
            found[name].view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
    return found


def gap(found: Params, expected: Params) -> float:
    ours, theirs = (torch.cat([p[n].flatten() for n in sorted(expected)]) for p in (found, expected))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("moves", [("",), ("head.",)])
def test_order_two_is_the_derivative_of_adapt_then_ask(moves):
    params, lessons = fixture()
    meta = second_order(partition(*moves), params, lessons, PLAN)
    expected = differences(lambda p: after_adaptation(p, lessons, moves), params)
    assert float(meta.loss) == pytest.approx(after_adaptation(params, lessons, moves), rel=1e-12)
    assert gap(meta.grads, expected) < 1e-7


def test_order_one_is_really_order_one():
    params, lessons = fixture()
    exact = differences(lambda p: after_adaptation(p, lessons, ("",)), params)
    meta = first_order(partition(""), params, lessons, PLAN)
    assert 0.01 < gap(meta.grads, exact) < 1
    assert float(meta.loss) == pytest.approx(after_adaptation(params, lessons, ("",)), rel=1e-12)


def test_order_one_is_the_query_gradient_where_adaptation_ends():
    params, lessons = fixture(1)
    fast = {n: p.clone().requires_grad_() for n, p in params.items()}
    for rows in PLAN.steps:
        loss = tanh_net(fast, Rows(lessons.support_x[0][rows], lessons.support_y[0][rows], torch.ones(1, 1)))
        grads = torch.autograd.grad(loss, list(fast.values()))
        fast = {n: (p - 0.3 * g).detach().requires_grad_() for (n, p), g in zip(fast.items(), grads, strict=True)}
    end = torch.autograd.grad(
        tanh_net(fast, Rows(lessons.query_x[0], lessons.query_y[0], torch.ones(1, 1))), list(fast.values())
    )
    found = first_order(partition(""), params, lessons, PLAN).grads
    assert gap(found, dict(zip(fast, end, strict=True))) < 1e-12


def implicit_of(parts: Parts, params: Params, lessons: Lessons, _: Plan) -> Meta:
    return implicit_meta(parts, params, lessons, PROXIMAL._replace(steps=10))[0]


def test_episodes_together_are_episodes_apart():
    params, lessons = fixture()
    for gradient in (second_order, first_order, interpolated, implicit_of):
        whole = gradient(partition("head."), params, lessons, PLAN).grads
        apart = [gradient(partition("head."), params, lessons.at(i), PLAN).grads for i in range(3)]
        assert gap(whole, {n: torch.stack([a[n] for a in apart]).mean(0) for n in params}) < 1e-12


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # when torchopt is imported
@pytest.mark.parametrize("order", [1, 2])
def test_order_agrees_with_torchopt(order):
    """MetaSGD differentiates through its own steps; with first order, gradients are made without their graph."""
    torchopt = pytest.importorskip("torchopt", reason="torchopt is not installed")
    params, lessons = fixture(1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(params["a"].clone())
            self.w = torch.nn.Parameter(params["head.weight"].clone())
            self.b = torch.nn.Parameter(params["head.bias"].clone())

        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(torch.tanh(x @ self.a) @ self.w.T + self.b, y)

    net = Net()
    begin = list(net.parameters())
    optimiser = torchopt.MetaSGD(net, lr=0.3)
    for rows in PLAN.steps:
        loss = net.loss(lessons.support_x[0][rows], lessons.support_y[0][rows])
        if order == 1:
            slopes = torch.autograd.grad(loss, [net.a, net.w, net.b])
            loss = sum((p * g).sum() for p, g in zip((net.a, net.w, net.b), slopes, strict=True))
        optimiser.step(loss)
    query = net.loss(lessons.query_x[0], lessons.query_y[0])
    theirs = dict(zip(params, torch.autograd.grad(query, begin), strict=True))
    ours = (second_order if order == 2 else first_order)(partition(""), params, lessons, PLAN)
    assert gap(ours.grads, theirs) < 1e-12


def test_maml_of_a_parabola_has_its_closed_form():
    """ℓ(w) = ½‖w − c‖²: one step gives (1 − a) w + a c, and the meta-gradient is (1 − a)((1 − a) w + a c − q)."""
    w, c, q = torch.randn(3, 1, 2, 5, dtype=DOUBLE, generator=seeded())
    pull = Parts(lambda p: p, lambda _, x: x, lambda p, rows: 0.5 * ((p["w"] - rows.x) ** 2).sum())
    none = torch.zeros(1, 2, dtype=torch.int64)
    meta = second_order(pull, {"w": w[0]}, Lessons(c, none, q, none), Plan(0.3, (slice(None),)))
    torch.testing.assert_close(meta.grads["w"], 0.7 * (0.7 * w[0] + 0.3 * c[0] - q[0]), rtol=1e-12, atol=1e-12)


def test_reptile_goes_back_the_sum_of_its_inner_steps():
    params, lessons = fixture(1)
    fast, total = dict(params), {n: torch.zeros_like(p) for n, p in params.items()}
    for rows in PLAN.steps:
        leaves = {n: p.clone().requires_grad_() for n, p in fast.items()}
        loss = tanh_net(leaves, Rows(lessons.support_x[0][rows], lessons.support_y[0][rows], torch.ones(1, 1)))
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        fast = {n: p - 0.3 * grads[n] for n, p in fast.items()}
        total = {n: t + 0.3 * grads[n] for n, t in total.items()}
    assert gap(interpolated(partition(""), params, lessons, PLAN).grads, total) < 2e-15 * 100


def test_adam_is_the_adam_of_torch():
    params = {"w": torch.randn(4, 3, dtype=DOUBLE, generator=seeded())}
    leaf = params["w"].clone().requires_grad_()
    theirs, moments = torch.optim.Adam([leaf], lr=0.01), still(params)
    for step in range(5):
        leaf.grad = torch.randn(4, 3, dtype=DOUBLE, generator=seeded(step))
        theirs.step()
        params, moments = adam(params, {"w": leaf.grad}, moments, 0.01)
    torch.testing.assert_close(params["w"], leaf.detach(), rtol=1e-12, atol=1e-12)


def solved_alone(loss: Callable[[Params], Tensor], fast: Params, query_grad: Params, proximal: Proximal) -> Solved:
    """The implicit gradient of a single episode."""
    stacked = [{name: p[None] for name, p in part.items()} for part in (fast, query_grad)]
    solved = implicit_gradient(lambda p: loss({name: part[0] for name, part in p.items()})[None], *stacked, proximal)
    return solved._replace(params={name: p[0] for name, p in solved.params.items()})


def quadratic(a: Tensor, m: Tensor, params: Params) -> Tensor:
    gap = params["w"] - m
    return 0.5 * gap @ a @ gap


def test_an_anchored_parabola_ends_where_its_closed_form_says():
    """φ* = (A + λI)⁻¹ (A m + λ θ), and the meta-gradient of ½‖φ* − q‖² is λ (A + λI)⁻¹ (φ* − q)."""
    root, m, theta, q = (torch.randn(*s, dtype=DOUBLE, generator=seeded(i)) for i, s in enumerate([(5, 5), (5,), (5,), (5,)]))
    a = root @ root.T / 5
    damped = a + 2.0 * torch.eye(5, dtype=DOUBLE)
    fast = anchored(partial(quadratic, a, m), {"w": theta}, PROXIMAL)
    torch.testing.assert_close(fast["w"], torch.linalg.solve(damped, a @ m + 2.0 * theta), rtol=1e-10, atol=1e-10)
    solved = solved_alone(partial(quadratic, a, m), fast, {"w": fast["w"] - q}, PROXIMAL)
    torch.testing.assert_close(solved.params["w"], 2.0 * torch.linalg.solve(damped, fast["w"] - q), rtol=1e-10, atol=1e-10)


def test_the_implicit_gradient_is_the_dense_solve():
    params, lessons = fixture(1)
    names = list(params)

    def flat_loss(flat: Tensor) -> Tensor:
        split = torch.split(flat, [params[n].numel() for n in names])
        held = {n: part.view(params[n].shape) for n, part in zip(names, split, strict=True)}
        return tanh_net(held, Rows(lessons.support_x[0], lessons.support_y[0], torch.ones(1, 1)))

    def loss(p: Params) -> Tensor:
        return flat_loss(torch.cat([p[n].flatten() for n in names]))

    fast = anchored(loss, params, PROXIMAL._replace(steps=10))
    flat = torch.cat([fast[n].flatten() for n in names])
    g = torch.randn(len(flat), dtype=DOUBLE, generator=seeded(7))
    dense = torch.linalg.solve(
        torch.eye(len(flat), dtype=DOUBLE) + torch.func.jacrev(torch.func.grad(flat_loss))(flat) / 2.0, g
    )
    grads = {
        n: part.view(params[n].shape) for n, part in zip(names, torch.split(g, [params[n].numel() for n in names]), strict=True)
    }
    solved = solved_alone(loss, fast, grads, PROXIMAL)
    found = torch.cat([solved.params[n].flatten() for n in names])
    assert float((found - dense).norm() / dense.norm()) < 1e-8
    assert solved.residual < 1e-12
    errors = []
    for steps in (1, 2, 4, 8):
        early = solved_alone(loss, fast, grads, PROXIMAL._replace(cg_steps=steps))
        errors.append(float((torch.cat([early.params[n].flatten() for n in names]) - dense).norm()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("moves", [("",), ("head.",)])
def test_the_meta_gradient_of_imaml_is_the_mean_of_dense_solves(moves: tuple[str, ...]):
    params, lessons = fixture()
    names = [n for n in params if n.startswith(moves)]
    sizes, proximal = [params[n].numel() for n in names], PROXIMAL._replace(steps=10)
    found, losses = [], []
    for sx, sy, qx, qy in zip(*lessons, strict=True):

        def held(flat: Tensor) -> Params:
            parts = zip(names, torch.split(flat, sizes), strict=True)
            return params | {n: part.view(params[n].shape) for n, part in parts}

        def support(flat: Tensor, x: Tensor = sx, y: Tensor = sy, held: Callable[[Tensor], Params] = held) -> Tensor:
            return tanh_net(held(flat), Rows(x, y, torch.ones(1, 1)))

        begin = torch.cat([params[n].flatten() for n in names])
        flat = anchored(lambda p, loss=support: loss(p["all"]), {"all": begin}, proximal)["all"].requires_grad_()
        loss = tanh_net(held(flat), Rows(qx, qy, torch.ones(1, 1)))
        slope = torch.autograd.grad(loss, flat)[0]
        hessian = torch.autograd.functional.hessian(support, flat.detach())
        found.append(torch.linalg.solve(torch.eye(len(flat), dtype=DOUBLE) + hessian / proximal.strength, slope))
        losses.append(float(loss.detach()))
    meta, residual = implicit_meta(partition(*moves), params, lessons, proximal)
    assert residual < 1e-11
    assert float(meta.loss) == pytest.approx(np.mean(losses), rel=1e-12)
    ours = torch.cat([meta.grads[n].flatten() for n in names])
    torch.testing.assert_close(ours, torch.stack(found).mean(0), rtol=1e-8, atol=1e-8)
    assert not any(grad.any() for n, grad in meta.grads.items() if n not in names)


def test_the_implicit_gradient_is_the_derivative_of_a_converged_inner_loop():
    params, lessons = fixture(1)
    support = Rows(lessons.support_x[0], lessons.support_y[0], torch.ones(1, 1))
    query = Rows(lessons.query_x[0], lessons.query_y[0], torch.ones(1, 1))

    def converged(theta: Params) -> Params:
        """Where scipy finds no slope of the anchored loss."""
        names, sizes = list(theta), [p.numel() for p in theta.values()]

        def held(flat: np.ndarray) -> Params:
            return {n: p.view(theta[n].shape) for n, p in zip(names, torch.split(torch.tensor(flat), sizes), strict=True)}

        def slope(flat: np.ndarray) -> np.ndarray:
            leaves = {n: p.requires_grad_() for n, p in held(flat).items()}
            total = tanh_net(leaves, support) + sum(((p - theta[n]) ** 2).sum() for n, p in leaves.items())  # λ/2 = 1
            grads = torch.autograd.grad(total, list(leaves.values()))
            return torch.cat([g.flatten() for g in grads]).numpy()

        begin = torch.cat([p.flatten() for p in theta.values()]).numpy()
        return held(root(slope, begin, tol=1e-13).x)

    bias = {"head.bias": params["head.bias"]}
    expected = differences(lambda p: float(tanh_net(converged(params | p), query)), bias, step=1e-4)
    fast = converged(params)
    grads = torch.func.grad(lambda p: tanh_net(p, query))(fast)
    solved = solved_alone(lambda p: tanh_net(p, support), fast, grads, PROXIMAL)
    assert gap(solved.params, expected) < 1e-6


def test_conjugate_gradients_stop_for_each_episode_where_they_should():
    """An easy system, one that needs all its steps, one with negative curvature at once, one later, and one of zeros."""
    diagonals = [[2.0, 2.0, 2.0], [1.0, 3.0, 9.0], [1.0, -9.0, 2.0], [1.0, -3.0, 2.5], [1.0, 2.0, 3.0]]
    matrices = torch.tensor(diagonals, dtype=DOUBLE).diag_embed()
    right = torch.ones(5, 3, dtype=DOUBLE)
    right[4] = 0
    calls = []

    def operator(v: Params) -> Params:
        calls.append(1)
        return {"w": torch.einsum("eij,ej->ei", matrices, v["w"])}

    solved = conjugate_gradients(operator, {"w": right}, steps=9, tolerance=1e-10)
    assert solved.steps.tolist() == [1, 3, 0, 1, 0]
    assert len(calls) == 3
    torch.testing.assert_close(solved.params["w"][:2], torch.linalg.solve(matrices[:2], right[:2]), rtol=1e-12, atol=0)
    assert torch.equal(solved.params["w"][2], right[2])
    torch.testing.assert_close(solved.params["w"][3], right[3] * 3 / 0.5, rtol=1e-12, atol=0)
    assert not solved.params["w"][4].any()
    assert (solved.residual[:2] < 1e-10).all()
    assert (solved.residual[2:4] >= 1).all()
    assert solved.residual[4] == 0


def flow_fixture() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = seeded(3)
    support, query = torch.randn(8, 6, generator=g, dtype=DOUBLE), torch.randn(5, 6, generator=g, dtype=DOUBLE)
    head = torch.randn(3, 6, generator=g, dtype=DOUBLE) * 0.3
    return support, torch.arange(8) % 3, query, torch.arange(5) % 3, head


def slope_of(w: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    return -(torch.softmax(features @ w.T, 1) - targets).T @ features / len(features)


def rk4(w: Tensor, features: Tensor, targets: Tensor, duration: Tensor, steps: int) -> Tensor:
    """Classical Runge-Kutta in the full space of W, by a fixed step, for autograd to go through."""
    h = duration / steps
    for _ in range(steps):
        k1 = slope_of(w, features, targets)
        k2 = slope_of(w + h / 2 * k1, features, targets)
        k3 = slope_of(w + h / 2 * k2, features, targets)
        k4 = slope_of(w + h * k3, features, targets)
        w = w + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return w


def test_the_solver_agrees_with_scipy():
    def swing(y: Tensor) -> Tensor:
        return torch.stack([y[1], -torch.sin(y[0])])

    ours = integrate(swing, torch.tensor([1.0, 0.0], dtype=DOUBLE), 10.0, tolerance=1e-11)
    theirs = solve_ivp(lambda _, y: [y[1], -math.sin(y[0])], (0, 10), [1.0, 0.0], method="DOP853", rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.numpy(), theirs.y[:, -1], rtol=1e-8)


def test_the_flow_agrees_with_scipy():
    support, labels, _, _, head = flow_fixture()
    targets = torch.nn.functional.one_hot(labels, 3).to(DOUBLE)

    def slope(_, flat):
        return slope_of(torch.tensor(flat).view(3, 6), support, targets).numpy().flatten()

    theirs = solve_ivp(slope, (0, 7), head.numpy().flatten(), method="DOP853", rtol=1e-11, atol=1e-12)
    ours = flowed(support, targets, head, 7.0, tolerance=1e-11)
    np.testing.assert_allclose(ours.numpy().flatten(), theirs.y[:, -1], rtol=1e-8, atol=1e-10)


def test_the_forward_mode_gradient_is_autograd_through_a_fine_solve():
    support, labels, query, asked, head = flow_fixture()
    targets = torch.nn.functional.one_hot(labels, 3).to(DOUBLE)
    leaves = [t.clone().requires_grad_() for t in (head, support, query, torch.tensor(3.0, dtype=DOUBLE))]
    end = rk4(leaves[0], leaves[1], targets, leaves[3], 200)
    loss = torch.nn.functional.cross_entropy(leaves[2] @ end.T, asked)
    expected = torch.autograd.grad(loss, leaves)
    found = flow_gradient((support, labels), (query, asked), head, 3.0, tolerance=1e-12)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-9, atol=1e-12)
    for ours, theirs in zip((found.head, found.support, found.query, found.duration), expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-9


def test_the_derivative_by_duration_is_a_finite_difference():
    support, labels, query, asked, head = flow_fixture()

    def loss(duration: float) -> float:
        return float(flow_gradient((support, labels), (query, asked), head, duration, tolerance=1e-12).loss)

    found = flow_gradient((support, labels), (query, asked), head, 3.0, tolerance=1e-12).duration
    assert float(found) == pytest.approx((loss(3.001) - loss(2.999)) / 0.002, rel=1e-6)


def test_small_steps_approach_the_flow_at_first_order():
    support, labels, _, _, head = flow_fixture()
    targets = torch.nn.functional.one_hot(labels, 3).to(DOUBLE)
    end, gaps = flowed(support, targets, head, 3.0, tolerance=1e-12), []
    for steps in (100, 1000):
        w = head
        for _ in range(steps):
            w = w + 3.0 / steps * slope_of(w, support, targets)
        gaps.append(float((w - end).norm()))
    assert math.log10(gaps[0] / gaps[1]) == pytest.approx(1.0, abs=0.05)


def test_no_time_is_no_change_and_more_time_is_less_loss():
    support, labels, _, _, head = flow_fixture()
    targets = torch.nn.functional.one_hot(labels, 3).to(DOUBLE)
    torch.testing.assert_close(flowed(support, targets, head, 0.0), head)
    losses = [
        float(torch.nn.functional.cross_entropy(support @ flowed(support, targets, head, t).T, labels))
        for t in (0, 0.5, 1, 2, 8, 32)
    ]
    assert losses == sorted(losses, reverse=True)


def held_bytes(run) -> int:
    """Peak bytes of tensors that are alive at once while `run` runs, beyond those before, counted by torch's own profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_memory_does_not_grow_with_the_duration():
    support, labels, query, asked, head = flow_fixture()

    def solve(duration: float):
        flow_gradient((support, labels), (query, asked), head, duration, tolerance=1e-6)

    solve(1.0)
    short, long = held_bytes(lambda: solve(1.0)), held_bytes(lambda: solve(100.0))
    assert long == pytest.approx(short, rel=0.05)
    params, lessons = fixture(1)

    def unroll(steps: int):
        second_order(partition("head."), params, lessons, Plan(0.1, (slice(None),) * steps))

    unroll(2)
    assert held_bytes(lambda: unroll(40)) > 2 * held_bytes(lambda: unroll(2))


def gated_fixture() -> tuple:
    network = build(ModelSettings(name="gated", hidden=(7, 5)), (6,), seed=0)
    params = network.initial(9, DOUBLE, "cpu")
    g = seeded(1)
    x = torch.randn(2, 11, 6, generator=g, dtype=DOUBLE)
    y = torch.randint(0, 9, (2, 11), generator=g)
    lessons = Lessons(x[:, :4], y[:, :4], x[:, 4:], y[:, 4:])
    return network, params, lessons, Plan(0.1, tuple(slice(i, i + 1) for i in range(4)))


@pytest.mark.parametrize("moves", [HEAD, TRUNK])
@pytest.mark.parametrize("gradient", [first_order, second_order])
@pytest.mark.parametrize("steps", [None, (slice(None), slice(1, 3), slice(None))])
def test_computing_once_what_does_not_move_changes_no_gradient(moves, gradient, steps):
    """Nor does a head that is formed at the end alone: row by row, and where steps share rows."""
    network, params, lessons, plan = gated_fixture()
    plan = plan if steps is None else plan._replace(steps=steps)
    cached = parts(network, moves, shape=(6,))
    plain = Parts(cached.begin, lambda _, x: x, parts(network, WHOLE, shape=(6,)).loss)
    expected = gradient(plain, params, lessons, plan)
    found = gradient(cached, params, lessons, plan)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=0)
    if gradient is second_order:
        assert gap(found.grads, expected.grads) < 1e-12


def test_anml_with_an_open_gate_and_a_head_only_partition_is_oml():
    """The gate's last bias so high that σ is exactly 1: loss and gradients of trunk and head are those of the trunk alone."""
    network, params, lessons, plan = gated_fixture()
    params = {
        **params,
        "body.gate.1.weight": params["body.gate.1.weight"] * 0,
        "body.gate.1.bias": torch.full((5,), 50.0, dtype=DOUBLE),
    }
    trunk = build(ModelSettings(hidden=(7, 5)), (6,), seed=0)
    alone = {n.replace("body.trunk.", "body."): p for n, p in params.items() if not n.startswith("body.gate.")}
    for gradient in (first_order, second_order):
        anml = gradient(parts(network, HEAD, shape=(6,)), params, lessons, plan)
        oml = gradient(parts(trunk, HEAD, shape=(6,)), alone, lessons, plan)
        assert torch.equal(anml.loss, oml.loss)
        for name, grad in oml.grads.items():
            assert torch.equal(anml.grads[name.replace("body.", "body.trunk.")], grad)
        assert not anml.grads["body.gate.1.bias"].any()


def test_a_closed_gate_stops_the_gradient_of_its_column():
    network, params, lessons, plan = gated_fixture()
    bias = params["body.gate.1.bias"].clone()
    weight = params["body.gate.1.weight"].clone()
    bias[2], weight[2] = -800.0, 0.0  # σ(−800) is 0 in double precision
    found = second_order(
        parts(network, TRUNK, shape=(6,)), {**params, "body.gate.1.bias": bias, "body.gate.1.weight": weight}, lessons, plan
    )
    assert not found.grads["head.weight"][:, 2].any()
    assert found.grads["head.weight"][:, [0, 1, 3, 4]].any()
