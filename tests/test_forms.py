"""The pure functions that servers answer with."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from streamlearn.errors import SnapshotError
from streamlearn.inputs import InputSettings
from streamlearn.kernels.columns import place
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.nearest_mean import NearestMean
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Batch
from streamlearn.serving.forms import FORMS, form_named, mlp, taken_in
from streamlearn.serving.forms.columns import places
from streamlearn.serving.forms.torch import logits as torch_logits
from streamlearn.serving.open_inference import ABOUT

OWN = f"{__name__}:own_body"


def own_body(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 8), nn.LayerNorm(8), nn.ReLU())


def batch(shape: tuple[int, ...] = (6,), count: int = 30) -> Batch:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, count) * 2  # rows 1 and 3 are never learned
    return Batch.of(random.normal(size=(count, *shape)) * 10 + y.reshape(-1, *[1] * len(shape)), y)


@pytest.mark.parametrize(
    "inputs", [InputSettings(), InputSettings(kind="scale", factor=0.1), InputSettings(kind="standardise")]
)
@pytest.mark.parametrize(
    ("form", "model", "shape"),
    [
        ("mlp", ModelSettings(hidden=(8, 8)), (6,)),
        ("mlp", ModelSettings(hidden=()), (2, 3)),
        ("torch", ModelSettings(name="conv", channels=3, hidden=(8,)), (8, 8)),
    ],
)
def test_a_form_gives_what_the_learner_predicts(
    form: str, model: ModelSettings, shape: tuple[int, ...], inputs: InputSettings
) -> None:
    learner = LaMAML(LaMAML.Settings(), Task(shape, model=model, inputs=inputs))
    rows = batch(shape)
    learner.learn(rows)
    rows.x[3] *= 1000  # beyond what a standardised feature is clipped to
    served = learner.answering()
    answer = form_named(served.form)(served.arrays, served.settings, rows.x)
    assert served.form == form
    assert answer.dtype == np.float32
    assert np.isneginf(answer).any(0).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(answer, learner.predict(rows.x), rtol=1e-5, atol=1e-5)
    taken = taken_in(form_named(served.form), served.arrays, served.settings)
    for some in (slice(0, 1), slice(None)):
        np.testing.assert_allclose(taken(rows.x[some], "auto"), answer[some], rtol=1e-5, atol=1e-5)


def perceptron(hidden: int, *, ever: bool = False) -> dict[str, Array]:
    """Random weights 5 → hidden → hidden → 4, of which label 2 is not active."""
    random = np.random.default_rng(0)
    sizes = {"body.layers.0": (5, hidden), "body.layers.1": (hidden, hidden)}
    arrays = {"active": np.array([1, 1, 0, 1], np.uint8)}
    for prefix in ("", "ever/")[: 1 + ever]:
        for name, shape in sizes.items():
            arrays[f"{prefix}{name}.weight"] = random.normal(size=shape).astype(np.float32)
            arrays[f"{prefix}{name}.bias"] = random.normal(size=shape[1]).astype(np.float32)
        arrays[f"{prefix}head.weight"] = random.normal(size=(4, hidden)).astype(np.float32)
        arrays[f"{prefix}head.bias"] = random.normal(size=4).astype(np.float32)
    return arrays


@pytest.mark.parametrize("ever", [False, True])
def test_weights_taken_in_answer_about_now_and_ever(ever: bool) -> None:
    arrays, x = perceptron(6, ever=ever), np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    taken = taken_in(form_named("mlp"), arrays, {})
    answers = {about: form_named("mlp")(arrays, {"about": about}, x) for about in ABOUT}
    for about, answer in answers.items():
        assert np.isneginf(answer).all(0).tolist() == [False, False, True, False]
        np.testing.assert_allclose(taken(x, about), answer, rtol=1e-5, atol=1e-5)
    assert np.allclose(answers["now"], answers["ever"]) is not ever


def test_weights_of_a_large_network_are_not_copied() -> None:
    assert mlp.taken_in(perceptron(100), {}) is not None
    arrays, x = perceptron(600), np.ones((1, 5), np.float32)
    assert mlp.taken_in(arrays, {}) is None
    found = taken_in(form_named("mlp"), arrays, {})(x, "auto")
    np.testing.assert_array_equal(found, form_named("mlp")(arrays, {}, x))


def test_arrays_may_be_read_only() -> None:
    """A follower maps them from a file."""
    for model in (ModelSettings(hidden=(8,)), ModelSettings(name="conv", channels=3, hidden=(8,))):
        learner = LaMAML(LaMAML.Settings(), Task((8, 8), model=model))
        learner.learn(batch((8, 8)))
        served = learner.answering()
        for array in served.arrays.values():
            array.flags.writeable = False
        x = batch((8, 8)).x
        x.flags.writeable = False
        assert form_named(served.form)(served.arrays, served.settings, x).shape == (30, 5)


def test_nearest_mean_orders_labels_by_distance() -> None:
    learner = NearestMean(NearestMean.Settings(), Task((6,)))
    rows = batch()
    learner.learn(rows)
    means = np.stack([rows.x[rows.labels == c].astype(np.float64).mean(0) for c in (0, 2, 4)])
    nearest = np.array([0, 2, 4])[((rows.x[:, None] - means) ** 2).sum(2).argmin(1)]
    served = learner.answering()
    np.testing.assert_array_equal(form_named("nearest_mean")(served.arrays, served.settings, rows.x).argmax(1), nearest)
    np.testing.assert_array_equal(learner.predict(rows.x).argmax(1), nearest)


def test_an_own_module_is_imported_only_when_the_caller_names_it() -> None:
    learner = LaMAML(LaMAML.Settings(), Task((6,), model=ModelSettings(module=OWN)))
    rows = batch()
    learner.learn(rows)
    served = learner.answering()
    with pytest.raises(SnapshotError, match="never imported because a file says so"):
        torch_logits(served.arrays, served.settings, rows.x)
    answer: Array = torch_logits(served.arrays, served.settings, rows.x, module=OWN)
    np.testing.assert_allclose(answer, learner.predict(rows.x), rtol=1e-5, atol=1e-5)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(SnapshotError, match="asks for the form 'exec': expected one of mlp, nearest_mean, pool, torch"):
        form_named("exec")


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"torch"}))
def test_a_form_in_numpy_loads_no_torch(name: str) -> None:
    code = (
        f"import sys; from streamlearn.serving.forms import form_named; form_named({name!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.integers(0, 4), min_size=2, max_size=9), st.integers(-1, 5))
def test_served_places_are_those_that_members_learn_from(edges: list[int], value: int) -> None:
    """Also where many values of the past are the least or the greatest there is, as in a column that is mostly 0."""
    sorted_edges = np.sort(np.array(edges, np.float32))
    for shift in (0.0, 0.5):
        at = np.float32(value + shift)
        assert places(np.array([[at]]), sorted_edges[None])[0, 0] == pytest.approx(place(at, sorted_edges), abs=1e-6)
