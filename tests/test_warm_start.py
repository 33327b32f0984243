"""Warm starts: what is written is what is read, what does not fit is refused with both values, learners begin there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn import configured_learner
from streamlearn.config import configure
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.nearest_mean import NearestMean
from streamlearn.learners.online_sgd import OnlineSGD
from streamlearn.learners.replay import ER, MER
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.meta.warm_start import load, save
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Batch, Initialisation
from streamlearn.serving.forms import form_named

SHAPE = (6,)
LAYERS = ("body.layers.0.weight", "body.layers.0.bias")


def start(plastic=(), **changes) -> Initialisation:
    """One layer of five units over six inputs."""
    random = np.random.default_rng(5)
    arrays = {LAYERS[0]: random.normal(size=(6, 5)), LAYERS[1]: random.normal(size=5)}
    values = {
        "algorithm": "oml",
        "order": 2,
        "model": ModelSettings(hidden=(5,)).model_dump(mode="json"),
        "shape": SHAPE,
        "inputs": InputSettings(kind="scale", factor=0.5).model_dump(mode="json"),
        "arrays": {name: array.astype(np.float32) for name, array in arrays.items()},
        "plastic": tuple(plastic),
        "head": "drawn",
        "learning_rate": 0.07,
        "split": "abc",
        "measures": {"accuracy": 0.5},
    }
    return Initialisation(**{**values, **changes})


def task(begin: Initialisation | None) -> Task:
    return Task(shape=SHAPE, model=ModelSettings(hidden=(5,)), inputs=InputSettings(kind="scale", factor=0.5), start=begin)


def rows(count: int, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    return Batch.of(random.normal(size=(count, 6)) + y[:, None], y)


def features(begin: Initialisation, x: np.ndarray) -> np.ndarray:
    """One rectified layer of the scaled input, in numpy."""
    return np.maximum(0.5 * x @ begin.arrays[LAYERS[0]] + begin.arrays[LAYERS[1]], 0)


@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.001, 1), st.sampled_from(["drawn", "zero"]))
@settings(max_examples=15, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, high, wide, rate, head):
    path = tmp_path_factory.mktemp("starts") / "s.safetensors"
    array = np.random.default_rng(1).normal(size=(high, wide)).astype(np.float32)
    written = start(arrays={"body.a": array}, plastic=("body.a",), learning_rate=rate, head=head, duration=rate)
    save(written, path)
    read = load(path)
    assert read.values() == written.values()
    assert read.fingerprint == written.fingerprint
    np.testing.assert_array_equal(read.arrays["body.a"], array)


def damaged(path: Path, **changes) -> None:
    """The file again with other values, and the fingerprint that it had."""
    with safetensors.safe_open(path, "numpy") as file:
        body = json.loads(file.metadata()["streamlearn"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    body["values"] |= changes
    path.write_bytes(safetensors.numpy.save(arrays, {"streamlearn": json.dumps(body)}))


def test_a_value_that_was_changed_afterwards_is_noticed(tmp_path):
    save(start(), tmp_path / "s")
    damaged(tmp_path / "s", learning_rate=9.0)
    with pytest.raises(ConfigError, match="it is damaged"):
        load(tmp_path / "s")


def test_a_value_that_is_not_known_is_refused_by_name(tmp_path):
    save(start(), tmp_path / "s")
    damaged(tmp_path / "s", surprise=1)
    with pytest.raises(ConfigError, match="lacks or adds surprise"):
        load(tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plastic": ("body.none",)}, "calls 'body.none' plastic"),
        ({"head": "copied"}, "head policy 'copied'"),
        ({"arrays": {LAYERS[0]: np.zeros((6, 5))}}, "holds float64 for"),
        ({"arrays": {LAYERS[0]: np.full((6, 5), np.nan, np.float32)}}, "finite numbers alone"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    save(start(**changes), tmp_path / "s")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "s")


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    (tmp_path / "s").write_bytes(b"not a warm start")
    for name in ("s", "absent"):
        with pytest.raises(ConfigError, match="expected a file that `meta-train` wrote"):
            load(tmp_path / name)
    (tmp_path / "s").write_bytes(safetensors.numpy.save({}, {"streamlearn": json.dumps({"schema": 7})}))
    with pytest.raises(ConfigError, match="written by schema 7, this program reads 1"):
        load(tmp_path / "s")


def configured(tmp_path, begin: Initialisation, **sections):
    save(begin, tmp_path / "s")
    values = {"source": {"type": "stdin"}, "input": {"shape": list(SHAPE)}, "warm_start": str(tmp_path / "s")}
    return configure({**values, **sections})


def test_what_the_configuration_leaves_out_is_taken_from_the_warm_start(tmp_path):
    config = configured(tmp_path, start(), learner={"name": "sgd"})
    told = configured_learner.task(config)
    assert told.model.hidden == (5,)
    assert told.inputs.factor == 0.5
    assert configured_learner.learner(config).settings.learning_rate == 0.07


def test_a_rate_that_the_configuration_gives_is_kept(tmp_path):
    config = configured(tmp_path, start(), learner={"name": "sgd", "learning_rate": 0.2, "clip_norm": 1.0})
    assert configured_learner.learner(config).settings.learning_rate == 0.2
    assert configured_learner.learner(config).settings.clip_norm == 1.0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"input": {"shape": [7]}}, r"input.shape is \[7\].*made with \[6\]"),
        ({"model": {"hidden": [8, 8]}}, r"model.hidden is \[8, 8\].*made with \[5\]"),
        ({"model": {"name": "conv"}}, 'model.name is "conv".*made with "mlp"'),
        ({"input": {"shape": [6], "transform": {"kind": "none"}}}, 'input.transform.kind is "none".*made with "scale"'),
    ],
)
def test_a_mismatch_is_refused_with_both_values(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        configured_learner.task(configured(tmp_path, start(), **sections))


def test_a_module_is_imported_only_when_the_configuration_names_it(tmp_path):
    own = ModelSettings(module="os:getcwd").model_dump(mode="json")
    with pytest.raises(ConfigError, match=r'model.module is "", .*made with "os:getcwd"'):
        configured_learner.task(configured(tmp_path, start(model=own)))


def test_a_warm_start_of_other_sizes_is_refused():
    with pytest.raises(ConfigError, match=r"holds \[5\] for 'body.layers.0.bias', the model has \[4\]"):
        OnlineSGD(OnlineSGD.Settings(), replace(task(start()), model=ModelSettings(hidden=(4,))))


KINDS = [
    (OnlineSGD, OnlineSGD.Settings()),
    (ER, ER.Settings(chunk=2)),
    (MER, MER.Settings(passes=2)),
    (SlidingLookAhead, SlidingLookAhead.Settings()),
    (LaMAML, LaMAML.Settings(chunk=2, inner_chunks=2)),
    (LaMAML, LaMAML.Settings(chunk=2, inner_chunks=2, kernel="torch")),
]


@pytest.mark.parametrize(("kind", "own"), KINDS)
@pytest.mark.parametrize("plastic", [(), LAYERS[:1], LAYERS])
def test_a_stream_moves_what_is_plastic_and_nothing_else(kind, own, plastic):
    begin = start(plastic)
    learner = kind(own, task(begin))
    learner.learn(rows(40))
    now = learner.answering().arrays
    moved = {name for name in LAYERS if not np.array_equal(now[name], begin.arrays[name])}
    assert moved == set(plastic)
    x = rows(5, seed=3).x
    np.testing.assert_allclose(
        form_named("mlp")(now, learner.answering().settings, x), learner.predict(x), rtol=1e-5, atol=1e-5
    )


def test_a_network_that_moves_as_a_whole_begins_at_the_warm_start():
    """From zero rows two labels are equally likely, so the head's first gradient is half the features, up and down."""
    begin = start(LAYERS, head="zero")
    learner = OnlineSGD(OnlineSGD.Settings(learning_rate=0.1), task(begin))
    batch = Batch.of(rows(1).x, np.array([2]))
    learner.learn(batch)
    np.testing.assert_allclose(learner.answering().arrays["head.bias"], [0, 0, 0], atol=1e-7)  # one label: no gradient
    learner.learn(Batch.of(batch.x, np.array([1])))
    h = features(begin, batch.x)[0]
    rows_of_head = learner.state().arrays["slow/head.weight"]
    np.testing.assert_allclose(rows_of_head[1], 0.1 * 0.5 * h, rtol=1e-5)
    np.testing.assert_allclose(rows_of_head[2], -0.1 * 0.5 * h, rtol=1e-5)


@pytest.mark.parametrize("head", ["drawn", "zero"])
def test_new_labels_begin_where_the_head_policy_says(head):
    state = OnlineSGD(OnlineSGD.Settings(), task(start(head=head))).state().arrays
    cold = OnlineSGD(OnlineSGD.Settings(), task(None)).state().arrays
    expected = {"drawn": cold["slow/head.weight"], "zero": np.zeros((16, 5))}[head]
    np.testing.assert_array_equal(state["slow/head.weight"], expected)
    assert not state["slow/head.bias"].any()


def test_the_nearest_mean_is_of_features():
    begin, batch, test = start(), rows(30), rows(50, seed=2)
    learner = NearestMean(NearestMean.Settings(), task(begin))
    learner.learn(batch)
    means = np.stack([features(begin, batch.x[batch.labels == label]).mean(0) for label in range(3)])
    gaps = ((features(begin, test.x)[:, None] - means) ** 2).sum(2)
    np.testing.assert_array_equal(learner.predict(test.x).argmax(1), gaps.argmin(1))
    served = learner.answering()
    np.testing.assert_allclose(
        form_named(served.form)(served.arrays, served.settings, test.x), learner.predict(test.x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", [OnlineSGD, NearestMean])
def test_a_checkpoint_goes_on_under_its_own_warm_start_only(kind):
    ours, other = start(), start(learning_rate=0.08)
    learner = kind(kind.Settings(), task(ours))
    learner.learn(rows(10))
    again = kind(kind.Settings(), task(ours))
    again.restore(learner.state())
    np.testing.assert_array_equal(again.predict(rows(4).x), learner.predict(rows(4).x))
    for begin, name in [(other, other.fingerprint), (None, "none")]:
        with pytest.raises(CheckpointError, match=f"{ours.fingerprint}, the configuration names {name}"):
            kind(kind.Settings(), task(begin)).restore(learner.state())


def test_fixed_parameters_take_the_type_that_the_learner_computes_in():
    learner = OnlineSGD(OnlineSGD.Settings(), replace(task(start()), dtype="float64"))
    learner.learn(rows(5))
    assert {p.dtype for p in learner.network.fixed.values()} == {torch.float64}
