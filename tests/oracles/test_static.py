"""Look-ahead in fixed shapes: the same numbers as the plain form, and nothing in it that a CUDA graph could not hold."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from streamlearn.adapt.captured import Captured
from streamlearn.errors import ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners.look_ahead import CMAML, LaMAML, LookAhead, Sync
from streamlearn.learners.replay import LaER
from streamlearn.learners.task import Task
from streamlearn.memory import sent
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Batch
from streamlearn.schema import Column, Schema

UPDATES = 500
KINDS: dict[str, Any] = {"la-maml": LaMAML, "sync": Sync, "c-maml": CMAML, "la-er": LaER}
PACE: dict[str, dict[str, float]] = {
    "la-maml": {"meta_lr": 0.05},
    "sync": {"meta_lr": 0.05, "outer_lr": 0.05},
    "c-maml": {"outer_lr": 0.05},
    "la-er": {"meta_lr": 0.05},
}
"""Slow enough to converge: where weights run away, they carry a rounding error with them."""
FORMS: list[dict[str, Any]] = [
    {},
    {"second_order": True},
    {"inner_clip": 0.05, "floor_inner": False, "max_contexts": 2},
    {"memory": {"rows": 9, "with_replacement": True, "accept_reference": True, "offer_early": False}},
]


class Shifted(nn.Module):
    """A convolutional module with a buffer, as a user's own may have one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 2)
        self.register_buffer("shift", torch.linspace(-1.0, 1.0, channels).view(-1, 1, 1))
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(x.unsqueeze(1))) + self.get_buffer("shift")).flatten(1)


def shifted(shape: tuple[int, ...]) -> nn.Module:
    """`model.module` of the tests."""
    return Shifted(3)


def made(kernel: str, kind: str = "la-maml", *, task: dict[str, Any], **options: Any) -> LookAhead:
    own = {"memory": {"rows": 9}, "inner_lr": 0.05, "glances": 2, **PACE[kind], **options}
    given = {"shape": (4, 3), "dtype": "float64", "inputs": InputSettings(kind="standardise"), **task}
    return KINDS[kind](KINDS[kind].Settings(kernel=kernel, **own), Task(**given))


def rows(count: int, shape: tuple[int, ...], seed: int, labels: int = 5) -> Batch:
    """Separable rows in two contexts; from the 200th on there are many more labels, so that the head grows."""
    random = np.random.default_rng(seed)
    y = random.integers(0, labels, count)
    y[200:] = random.integers(0, 4 * labels, max(0, count - 200))
    return Batch.of(random.normal(size=(count, *shape)) + 0.3 * y.reshape(-1, *[1] * len(shape)), y, contexts=y % 2)


def apart(one: LookAhead, two: LookAhead) -> float:
    """The largest difference in all that would be saved; what is no number of the network must be the same bits."""
    a, b = one.state().arrays, two.state().arrays
    assert a.keys() == b.keys()
    for name in a:
        if not name.startswith(("slow/", "rates/")):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a if name.startswith(("slow/", "rates/")))


@settings(max_examples=2, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    form=st.sampled_from(FORMS),
    model=st.sampled_from(["mlp", "conv"]),
    sides=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    hidden=st.lists(st.integers(2, 7), min_size=1, max_size=2),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    replay_rows=st.integers(0, 12),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_the_plain_numbers_after_five_hundred_updates(
    *,
    kind: str,
    form: dict[str, Any],
    model: Any,
    sides: tuple[int, int],
    hidden: list[int],
    parts: tuple[int, int],
    replay_rows: int,
    seed: int,
) -> None:
    chunk, glances = parts[0] * parts[1], 5
    options = {"chunk": chunk, "inner_chunks": parts[0], "replay_rows": replay_rows, "glances": glances, **form}
    task = {"shape": sides, "model": ModelSettings(name=model, channels=3, hidden=tuple(hidden)), "seed": seed}
    static, plain = (made(kernel, kind, task=task, **options) for kernel in ("static", "torch"))
    batch = rows(chunk * UPDATES // glances, sides, seed)
    reports = [learner.learn(batch) for learner in (static, plain)]
    assert apart(static, plain) < 1e-12
    np.testing.assert_allclose(reports[0].logits, reports[1].logits, rtol=1e-5, atol=1e-5)
    assert reports[0].measures == pytest.approx(dict(reports[1].measures), abs=1e-9, nan_ok=True)
    assert plain.state().arrays["slow/head.bias"].any(), "they learn"


def test_a_module_of_the_users_own_gives_the_plain_numbers() -> None:
    task = {"shape": (5, 4), "model": ModelSettings(module=f"{__name__}:shifted")}
    static, plain = (made(kernel, task=task) for kernel in ("static", "torch"))
    for learner in (static, plain):
        learner.learn(rows(400, (5, 4), 1))
    assert apart(static, plain) < 1e-12


def test_one_row_and_one_replay_of_another_context_keep_their_own_masks() -> None:
    options = {"chunk": 1, "inner_chunks": 1, "replay_rows": 1, "max_contexts": 2}
    static, plain = (made(kernel, task={}, **options) for kernel in ("static", "torch"))
    for learner in (static, plain):
        learner.learn(rows(30, (4, 3), 1))
    assert apart(static, plain) < 1e-12


def test_an_update_that_is_not_finite_is_undone_as_the_plain_form_undoes_it() -> None:
    batch = rows(40, (4, 3), 2)
    batch.x[20:30] *= 1e38
    batch.x[25] = np.inf
    static, plain = (made(kernel, task={}) for kernel in ("static", "torch"))
    reports = [learner.learn(batch) for learner in (static, plain)]
    for report in reports:
        assert report.rejected.tolist() == [False] * 20 + [True] * 10 + [False] * 10
    assert apart(static, plain) < 1e-12
    before, broken = static.point, rows(10, (4, 3), 3)
    broken.x[5] = np.nan
    assert static._static is not None
    report = static._run(static._columns(broken), static._static)
    assert report.read[0] == 0
    torch.testing.assert_close(report.slow, before.weights["slow"], rtol=0, atol=0)
    torch.testing.assert_close(report.rates, before.weights["rates"], rtol=0, atol=0)


def test_tensors_stay_where_they_are_until_the_head_grows() -> None:
    """A graph that was recorded reads and writes addresses."""
    learner = made("static", task={})

    def places() -> list[int]:
        assert learner._static is not None
        return [held.data_ptr() for held in learner._static._tensors] + [learner.memory.columns["x"].data_ptr()]

    learner.learn(rows(10, (4, 3), 3))
    first = places()
    learner.learn(rows(180, (4, 3), 4))
    learner.predict(np.zeros((2, 4, 3)))
    restored = learner.state()
    learner.restore(restored)
    learner.learn(rows(10, (4, 3), 5))
    assert places() == first
    learner.learn(Batch.of(np.zeros((10, 4, 3)), np.arange(10, 20)))
    assert places()[:2] != first[:2], "20 labels need 32 rows"


@pytest.mark.parametrize(
    ("kind", "form", "model"),
    [
        *(("la-maml", form, model) for form in FORMS for model in ("mlp", "conv", "module")),
        *((kind, {}, "module") for kind in ("sync", "c-maml", "la-er")),
    ],
)
def test_nothing_inside_a_chunk_looks_at_a_value_of_the_device(kind: str, form: dict[str, Any], model: Any) -> None:
    """On the device `meta` tensors have shapes and no values: what would wait for one, or whose shape depends on one, raises.

    So does a tensor of the host that gets in between. What is left to read is the report, in one piece.
    """
    shape = (5, 4)
    network = ModelSettings(module=f"{__name__}:shifted") if model == "module" else ModelSettings(name=model, channels=3)
    sizes = {"chunk": 4, "inner_chunks": 2, "replay_rows": 3}
    task = {"shape": shape, "model": network, "device": "meta", "dtype": "float32"}
    learner = made("static", kind, task=task, **{**sizes, **form})
    batch = rows(4, shape, 0)
    assert learner._static is not None
    for _ in range(3):  # the memory fills, and its rows are replaced
        learner.point = learner.point._replace(inputs=learner.point.inputs.learned(batch.x))
        report = learner._run(learner._columns(batch), learner._static)
        learner._remember(learner._columns(batch))
        learner._early = None
    assert {p.device.type for p in (*report.slow.values(), *report.rates.values(), report.read)} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError)):
        learner._read(report)


@pytest.mark.parametrize(
    "looks",
    [
        lambda x: float(x.sum()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        torch.nonzero,
        lambda x: x + torch.ones(3),
        lambda x: 1 if x.sum() > 0 else 0,
        torch.unique,
    ],
)
def test_the_test_above_notices_a_look(looks: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        looks(torch.ones(3, device="meta"))


def test_what_was_computed_is_written_into_its_place() -> None:
    held = torch.ones(2)
    double = Captured(lambda: [2 * held], [held])
    place = held.data_ptr()
    double()
    double()
    assert held.tolist() == [4.0, 4.0]
    assert held.data_ptr() == place


def test_named_columns_have_no_fixed_form() -> None:
    task = {"shape": (1,), "schema": Schema((Column("a"),)), "inputs": InputSettings()}
    assert made("auto", task={**task, "device": "meta"}).kernel == "torch"
    with pytest.raises(ConfigError, match="'static': expected inputs of a shape"):
        made("static", task=task)


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_a_graph_gives_the_plain_numbers_of_the_device(form: dict[str, Any], model: Any, cuda: str) -> None:
    """Memory fills, the head grows, one update is not finite; all of it replayed, against kernel by kernel."""
    task = {"shape": (5, 4), "model": ModelSettings(name=model, channels=3, hidden=(7,)), "device": cuda}
    batch = rows(400, (5, 4), 6)
    batch.x[150] = np.inf
    static, plain = (made(kernel, task=task, **form) for kernel in ("auto", "torch"))
    assert static.kernel == "static"
    for learner in (static, plain):
        assert learner.learn(batch).rejected.sum() == 10
    assert apart(static, plain) < 1e-10


@pytest.mark.gpu
def test_nothing_inside_a_chunk_waits_for_the_gpu(cuda: str) -> None:
    learner = made("static", task={"device": cuda, "dtype": "float32"})
    learner.learn(rows(100, (4, 3), 7))
    columns = learner._columns(rows(10, (4, 3), 8))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        report = learner._run(columns, learner._static)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner._read(report)["update_norm"] > 0


@pytest.mark.gpu
def test_a_tensor_is_sent_without_waiting(cuda: str) -> None:
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = sent(torch.arange(5), torch.device(cuda))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert there.tolist() == [0, 1, 2, 3, 4]
