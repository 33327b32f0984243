"""ANML, COMLN and Continual-MAML against arrays made by their authors' implementations (see meta_learners.md)."""

import numpy as np
import pytest
import torch

from streamlearn.adapt.flow import flow_gradient, flowed
from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import Lessons, Plan, each_adapted, first_order
from streamlearn.learners.continual_maml import ContinualMAML
from streamlearn.learners.task import Task
from streamlearn.meta.partition import TRUNK, parts
from streamlearn.models.classifier import ModelSettings, build
from streamlearn.records import Array, Batch, State
from tests.golden.arrays import Arrays, load

EXACT = {"rtol": 1e-11, "atol": 1e-12}


# ANML: a gate, a trunk and a head; four steps on one character, then the gradient of the query.

ANML_NAMES = {
    **{f"conv{i + 1}_nm": f"body.gate.0.convs.{i}" for i in range(3)},
    **{f"bn{i + 1}_nm": f"body.gate.0.norms.{i}" for i in range(3)},
    "nm_to_fc": "body.gate.1",
    **{f"conv{i + 1}": f"body.trunk.convs.{i}" for i in range(3)},
    **{f"bn{i + 1}": f"body.trunk.norms.{i}" for i in range(3)},
    "fc": "head",
}


def anml(golden: Arrays, prefix: str) -> Params:
    return {
        f"{ours}.{kind}": torch.from_numpy(golden[f"{prefix}/{theirs}.{kind}"])
        for theirs, ours in ANML_NAMES.items()
        for kind in ("weight", "bias")
    }


def anml_lessons(golden: Arrays) -> Lessons:
    def images(pixels: Array) -> torch.Tensor:
        return torch.from_numpy((pixels - 128.0) / 64.0)

    labels = (torch.from_numpy(golden[name]) for name in ("support_y", "query_y"))
    support_y, query_y = (part.flatten() for part in labels)
    return Lessons(images(golden["support"])[None], support_y[None], images(golden["query"])[None], query_y[None])


def test_anml_answers_adapts_and_differentiates_as_the_released_code() -> None:
    golden = load("anml")
    network = build(ModelSettings(name="gated", channels=6, gate_channels=4), (3, 28, 28), seed=0)
    params, lessons = anml(golden, "start"), anml_lessons(golden)
    plan = Plan(float(golden["inner_lr"]), tuple(slice(i, i + 1) for i in range(len(golden["support"]))))
    own = parts(network, TRUNK, shape=(3, 28, 28))
    torch.testing.assert_close(network.logits(params, lessons.query_x[0]), torch.from_numpy(golden["logits"]), **EXACT)
    fast = each_adapted(own, params, lessons, plan)
    expected = anml(golden, "fast")
    torch.testing.assert_close({n: p[0] for n, p in fast.items()}, {n: expected[n] for n in fast}, **EXACT)
    found = first_order(own, params, lessons, plan)
    torch.testing.assert_close(found.loss, torch.from_numpy(golden["loss"]), **EXACT)
    torch.testing.assert_close(found.grads, anml(golden, "grad"), rtol=1e-9, atol=1e-12)


# COMLN: the end of the flow, and the forward-mode gradient of the query.


@pytest.mark.parametrize("case", range(3))
def test_comln_flows_and_differentiates_as_the_released_code(case: int) -> None:
    """Their solver's tolerance is 1e-10, which bounds how close it can come; ours is finer."""
    golden = load("comln")
    support, query, head = (torch.from_numpy(golden[name]) for name in ("support_x", "query_x", "head"))
    support_y, query_y = (torch.from_numpy(golden[name]) for name in ("support_y", "query_y"))
    duration = float(golden["duration"][case])
    targets = torch.nn.functional.one_hot(support_y, len(head)).double()
    end = flowed(support, targets, head, duration, tolerance=1e-12)
    found = flow_gradient((support, support_y), (query, query_y), head, duration, tolerance=1e-12)
    for name, ours in {
        "end": end,
        "loss": found.loss,
        "head": found.head,
        "support": found.support,
        "query": found.query,
        "log_duration": found.duration * duration,
    }.items():
        torch.testing.assert_close(ours, torch.from_numpy(golden[f"{case}/{name}"]), rtol=1e-6, atol=1e-7, msg=name)


# Continual-MAML: one chunk after another, from the same slow weights each time.

CONTINUAL_NAMES = {
    "w0": "body.layers.0.weight",
    "b0": "body.layers.0.bias",
    "w1": "head.weight",
    "b1": "head.bias",
}
LABELS = 3


def continual(golden: Arrays, pair: int) -> ContinualMAML:
    """A learner whose slow weights are the recorded ones, and whose chunk before is the pair's first."""
    settings = ContinualMAML.Settings(
        chunk=golden["x"].shape[2],
        inner_steps=int(golden["steps"][pair]),
        inner_lr=float(golden["inner_lr"]),
        outer_lr=float(golden["outer_lr"]),
        switch_share=float(golden["gamma"]) / np.log(LABELS),
        second_order=not golden["first_order"][pair],
    )
    learner = ContinualMAML(settings, Task((6,), known=LABELS, model=ModelSettings(hidden=(9,)), dtype="float64"))
    fresh = learner.state()
    learner.learn(Batch.of(golden["x"][pair, 0], golden["y"][pair, 0]))
    after = learner.state()
    still = {name: array for name, array in fresh.arrays.items() if name.startswith(("mean/", "square/"))}
    slow = {f"slow/{ours}": array for ours, array in weights(golden, "start").items()}
    padded = {name: padded_to(fresh.arrays[name], array) for name, array in slow.items()}
    previous = {**after.values["previous"], "adam_steps": 0}
    learner.restore(State({**after.arrays, **still, **padded}, {**after.values, "previous": previous}))
    return learner


def weights(golden: Arrays, prefix: str) -> Arrays:
    return {ours: golden[f"{prefix}/{theirs}"] for theirs, ours in CONTINUAL_NAMES.items()}


def padded_to(room: Array, array: Array) -> Array:
    """The recorded rows, and whatever stands in rows of labels that take no part."""
    return np.concatenate([array, room[len(array) :]])


@pytest.mark.parametrize("pair", range(6))
def test_continual_maml_takes_the_step_of_the_released_code(pair: int) -> None:
    golden = load("continual_maml")
    learner = continual(golden, pair)
    report = learner.learn(Batch.of(golden["x"][pair, 1], golden["y"][pair, 1]))
    switched = bool(golden["switch"][pair])
    assert report.measures["context_switch"] == float(switched)
    state = learner.state()
    for name, expected in weights(golden, f"{pair}/slow").items():
        np.testing.assert_allclose(state.under("slow").arrays[name][: len(expected)], expected, **EXACT)
    if switched:  # the slow weights stay, so both adapt from the same ones
        assert report.measures["adaptation_gain"] == pytest.approx(
            float(golden[f"{pair}/loss"] - golden[f"{pair}/adapted_loss"]), rel=1e-11
        )
        for name, expected in weights(golden, f"{pair}/fast").items():
            np.testing.assert_allclose(state.under("fast").arrays[name][: len(expected)], expected, **EXACT)
        return
    for name, expected in weights(golden, f"{pair}/grad").items():  # Adam's first moment after one step is a tenth of it
        np.testing.assert_allclose(state.under("mean").arrays[name][: len(expected)] * 10, expected, rtol=1e-9, atol=1e-12)


def test_the_recorded_chunks_hold_both_switches_and_steps() -> None:
    assert sorted(load("continual_maml")["switch"].tolist()) == [False, False, False, False, True, True]
