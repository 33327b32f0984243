"""Exported models, run by torch and by onnxruntime: what `predict` says, for each kind of model, with labels beside it."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from benchmarks.testbed.numbered import numbered
from streamlearn.errors import ConfigError
from streamlearn.export.files import METADATA, as_module, examples, exported
from streamlearn.inputs import InputSettings
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.members.presence import GateSettings
from streamlearn.learners.nearest_mean import NearestMean
from streamlearn.learners.pool import Pool
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Answering, Batch, Snapshot
from streamlearn.schema import Column, Schema
from streamlearn.serving.forms.pool import logits
from streamlearn.snapshot import FilePublisher
from tests.test_forms import OWN

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra `dev`")

LABELS = ("a", 1, "1", "d", "e")
SCHEMA = Schema(
    (
        Column("amount", "numeric", True, 0),
        Column("carrier", "categorical", True, 16),
        Column("weight", "numeric", False, 0),
        Column("place", "categorical", False, 8),
    ),
    "refuse",
    8,
)


def rows(shape, count=400, schema=None):
    """Labels 0, 2 and 4, of which the first half of the stream looks otherwise than the second."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, count) * 2
    x = (
        random.normal(size=(count, *shape))
        + y.reshape(-1, *[1] * len(shape))
        + 3.0 * (np.arange(count) > count / 2).reshape(-1, *[1] * len(shape))
    )
    if schema is not None:
        x[:, 1], x[:, 3] = random.integers(0, 16, count), y + 1
        x[random.random(count) < 0.1, 0] = np.nan
    return Batch.of(x, y)


def learned(kind, shape, schema=None, settings=None, **task):
    learner = kind(settings or kind.Settings(), Task(shape, schema=schema, **task))
    learner.learn(rows(shape, schema=schema))
    return learner, Snapshot(40, learner.answering(), LABELS, shape, 0, {}, schema)


GATED = Pool.Settings(gate=GateSettings(window=100, half_life=50.0))
STANDARDISED = InputSettings(kind="standardise")
MADE = {
    "mlp": lambda: learned(LaMAML, (6,), model=ModelSettings(hidden=(8, 8)), inputs=STANDARDISED),
    "conv": lambda: learned(LaMAML, (8, 8), model=ModelSettings(name="conv", channels=3, hidden=(8,))),
    "two sets of weights": lambda: learned(SlidingLookAhead, (6,), model=ModelSettings(hidden=(8,))),
    "means": lambda: learned(NearestMean, (2, 3), inputs=STANDARDISED),
    "named columns": lambda: learned(LaMAML, (4,), SCHEMA, model=ModelSettings(hidden=(8,))),
    "pool": lambda: learned(Pool, (6,), settings=GATED),
    "pool of one": lambda: learned(Pool, (6,), settings=Pool.Settings(members=("plastic-mlp",))),
    "pool of named columns": lambda: learned(Pool, (4,), SCHEMA, GATED),
}


@pytest.fixture(scope="module")
def made():
    """Each learner once."""
    known = {}
    return lambda name: known.get(name) or known.setdefault(name, MADE[name]())


def questions(snapshot, count):
    """Inputs of all kinds, and the newest that were learned."""
    learned = rows(snapshot.shape, schema=snapshot.schema).x[-count:]
    return np.concatenate([examples(snapshot, count, seed=count), learned])


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_torch(path, x):
    told = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch, about its own format
        program = torch.export.load(path, extra_files=told)
    with torch.no_grad():
        logits, probabilities = program.module()(torch.tensor(x))
    return logits.numpy(), probabilities.numpy(), json.loads(told[METADATA])


def by_onnx(path, x):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"features": x})
    return logits, probabilities, json.loads(session.get_modelmeta().custom_metadata_map[METADATA])


RUN = {".pt2": by_torch, ".onnx": by_onnx}


@pytest.mark.parametrize(
    ("name", "suffix", "about"),
    [
        *((name, ".onnx", "auto") for name in MADE),
        ("mlp", ".pt2", "auto"),
        ("conv", ".pt2", "auto"),
        ("pool of named columns", ".pt2", "auto"),
        ("two sets of weights", ".pt2", "ever"),
        ("pool", ".onnx", "ever"),
        ("named columns", ".pt2", "now"),
    ],
)
def test_it_says_what_predict_says(made, tmp_path, name, suffix, about):
    learner, snapshot = made(name)
    facts = exported(snapshot, tmp_path / f"model{suffix}", about=about)
    assert facts["largest_difference"] <= 1e-5
    for count in (1, 50):
        x = questions(snapshot, count)
        logits, probabilities, told = RUN[suffix](tmp_path / f"model{suffix}", x)
        expected = learner.predict(x, about=about)
        np.testing.assert_allclose(probabilities, softmax(expected), atol=1e-5)
        np.testing.assert_array_equal(np.isneginf(logits), np.isneginf(expected))
    assert (told["labels"], told["model_version"], told["about"]) == (list(LABELS), 40, about)
    assert told["input"]["shape"] == [-1, *snapshot.shape]
    columns = told["input"]["columns"]
    assert [column["name"] for column in columns or []] == ([c.name for c in SCHEMA.columns] if snapshot.schema else [])


def test_among_what_the_pool_was_tried_on_are_rows_of_both_kinds(made):
    """Else nothing would be said of its fallback."""
    _, snapshot = made("pool of named columns")
    served, x = snapshot.answering, questions(snapshot, 50)
    now, auto = (logits(served.arrays, {**served.settings, "about": about}, x) for about in ("now", "auto"))
    assert set((now == auto).all(1).tolist()) == {True, False}


def test_an_own_module_needs_its_factory_named(tmp_path):
    learner, snapshot = learned(LaMAML, (6,), model=ModelSettings(module=OWN))
    with pytest.raises(ConfigError, match="name it with --module to export it"):
        exported(snapshot, tmp_path / "own.pt2")
    exported(snapshot, tmp_path / "own.pt2", module=OWN)
    x = examples(snapshot, 20, seed=0)
    np.testing.assert_allclose(by_torch(tmp_path / "own.pt2", x)[1], softmax(learner.predict(x)), atol=1e-5)


def test_what_cannot_be_exported_is_refused_and_told_what_can(tmp_path):
    snapshot = numbered(7)
    for path, message in (
        (tmp_path / "x.pkl", "'.pkl', expected one of .pt2, .onnx"),
        (tmp_path / "no" / "x.pt2", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            exported(snapshot, path)
    with pytest.raises(ConfigError, match="--about is 'then': expected one of now, ever, auto"):
        exported(snapshot, tmp_path / "x.pt2", about="then")
    strange = Snapshot(7, Answering("strange", {}, {}), ("a",), (2,), 0)
    with pytest.raises(ConfigError, match="form 'strange' cannot be exported: expected one of mlp, nearest_mean, torch, pool"):
        exported(strange, tmp_path / "x.pt2")
    arrays = {**snapshot.answering.arrays, "active": np.zeros(20, np.uint8)}
    with pytest.raises(ConfigError, match="no label is learned yet"):
        exported(Snapshot(7, Answering("mlp", arrays, {}), snapshot.labels, (2,), 0), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_that_would_answer_otherwise_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "streamlearn.export.files.as_module", lambda snapshot, **told: as_module(numbered(snapshot.number + 1), **told)
    )
    with pytest.raises(ConfigError, match=r"its probabilities would differ by .*, expected 1e-5 at most"):
        exported(numbered(7), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_without_its_library_onnx_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("streamlearn.export.files.importlib.util.find_spec", {}.get)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed: pip install 'streamlearn\[onnx\]'"):
        exported(numbered(7), tmp_path / "x.onnx")


def test_the_command_takes_a_state_directory_or_a_folder_of_snapshots(tmp_path):
    FilePublisher(tmp_path / "state" / "live").publish(numbered(7))
    command = [
        sys.executable,
        "-m",
        "streamlearn",
        "export",
        str(tmp_path / "state"),
        "--to",
        str(tmp_path / "x.pt2"),
        "--json",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["model_version"] == 7
    assert by_torch(tmp_path / "x.pt2", np.ones((1, 2), np.float32))[1].argmax() == 0
    command[4] = str(tmp_path)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, "holds no snapshot" in done.stderr) == (2, True)
