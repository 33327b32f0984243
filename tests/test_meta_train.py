"""`meta-train`: each algorithm learns something of classes that it never saw, resumes bit for bit, ends in a warm start."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from streamlearn import configured_learner
from streamlearn.cli import app
from streamlearn.config import MetaConfig, configure, load_meta
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.meta.algorithms import ALGORITHMS
from streamlearn.meta.corpus import Corpus, Episodes
from streamlearn.meta.settings import CorpusSettings, MetaSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.meta.warm_start import load
from streamlearn.meta_train import meta_train
from streamlearn.models.classifier import ModelSettings, mixed_seed
from streamlearn.records import Batch

SHAPE = (12,)


def samples(classes: int = 24, each: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes differ in three of twelve features; the other nine are noise, which a trunk has to learn to leave out."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = random.normal(size=(len(y), 12))
    x[:, :3] = 2 * random.normal(size=(classes, 3))[y] + 0.2 * random.normal(size=(len(y), 3))
    return x.astype(np.float32), y


def corpus(classes: int = 24, **changes) -> Corpus:
    return Corpus.of(*samples(classes), **{"held_out": 0.3, "seed": 0, **changes})


SMALL = {"ways": 4, "shots": 2, "queries": 4, "meta_batch": 3, "inner_steps": 2, "validation_episodes": 40, "drawings": 4,
         "further": 2, "remember": 6, "classes": 2, "validation_shots": 6, "outer_lr": 0.01}  # fmt: skip
ALONG = {"meta_batch": 1, "remember": 30, "inner_lr": 0.02, "classes": 1}
OWN = {
    "reptile": {"outer_lr": 0.5, "inner_lr": 0.2, "inner_steps": 8},
    "imaml": {"cg_steps": 5},
    "comln": {"duration": 3.0},
    "supervised": {"batch": 32},
    "oml": ALONG,
    "anml": ALONG,
}


def trainer(algorithm: str, *, seed: int = 0, corpus_classes: int = 24, **changes) -> Trainer:
    settings = MetaSettings(algorithm=algorithm, **{**SMALL, **OWN.get(algorithm, {}), **changes})
    model = ModelSettings(name="gated" if algorithm == "anml" else "mlp", hidden=(16, 8))
    return Trainer(
        settings, corpus(corpus_classes), shape=SHAPE, model=model, inputs=InputSettings(kind="scale", factor=0.5), seed=seed
    )


def same(a, b) -> bool:
    return (
        a.values == b.values
        and a.arrays.keys() == b.arrays.keys()
        and all(np.array_equal(a.arrays[n], b.arrays[n]) for n in a.arrays)
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_meta_training_helps_on_classes_that_it_never_saw(name):
    """Rows of a class are drawn anew when its turn comes, so algorithms that go class by class need many of them."""
    along = ALGORITHMS[name].episodes != "few-shot"
    made = trainer(name, steps=40, corpus_classes=120 if along else 24)
    before = made.validate()
    for _ in range(150 if along else 40):
        assert not made.step().rejected
    after = made.validate()
    assert after["accuracy"] > before["accuracy"] + (0.0 if along else 0.1)
    assert not along or after["nearest_mean"] > before["nearest_mean"] + 0.1


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_resumed_run_is_a_straight_run(name):
    straight, first, second = trainer(name), trainer(name), trainer(name)
    for _ in range(4):
        straight.step()
    straight.validate()
    for _ in range(2):
        straight.step()
        first.step()
    for _ in range(2):
        first.step()
    first.validate()
    second.restore(first.state())
    for _ in range(2):
        second.step()
    assert same(straight.state(), second.state())
    assert straight.initialisation().fingerprint == second.initialisation().fingerprint


@pytest.mark.parametrize("name", ALGORITHMS)
def test_validating_changes_nothing_that_is_learned(name):
    one, two = trainer(name), trainer(name)
    for _ in range(2):
        one.step()
        one.validate()
        two.step()
    assert {n: a.tobytes() for n, a in one.state().arrays.items() if n.startswith("params")} == {
        n: a.tobytes() for n, a in two.state().arrays.items() if n.startswith("params")
    }


def test_supervised_steps_are_those_of_adam_on_batches_with_one_softmax_over_all_classes():
    """By torch's own optimiser, from the same weights, on the same rows."""
    made = trainer("supervised", clip_norm=None)
    leaves = {name: p.clone().requires_grad_() for name, p in made.params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.01)
    for _ in range(3):
        lessons = made._drawn(np.random.default_rng(mixed_seed(0, 11, made.steps)))
        assert lessons.query_x.shape == (1, 32, *SHAPE)
        loss = torch.nn.functional.cross_entropy(made.network.logits(leaves, lessons.query_x[0]), lessons.query_y[0])
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert made.step().loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert len(leaves["head.bias"]) == len(made._corpus.train), "every class that is trained on"
    for name, p in made.params.items():
        torch.testing.assert_close(p, leaves[name].detach(), rtol=1e-4, atol=1e-5)


def test_a_batch_is_of_training_rows_with_their_labels():
    own = corpus()
    lessons = Episodes(own, Inputs.fresh(InputSettings(), SHAPE), torch.float32, "cpu").batch(np.random.default_rng(0), 500)
    by_row = {own.x[row].tobytes(): label for label, rows in enumerate(own.train) for row in rows}
    found = [by_row[x.numpy().tobytes()] for x in lessons.query_x[0]]
    assert found == lessons.query_y[0].tolist()
    assert len(set(found)) == len(own.train)
    assert lessons.support_x.shape == (1, 0, *SHAPE)


def test_what_validated_best_is_kept():
    made = trainer("anil")
    for _ in range(60):
        made.step()
    best = made.validate()["accuracy"]
    kept = made.initialisation()
    made.params = {name: torch.zeros_like(p) for name, p in made.params.items()}
    assert made.validate()["accuracy"] < best
    assert made.initialisation().fingerprint == kept.fingerprint
    assert kept.measures["accuracy"] == best
    assert kept.steps == 60


def test_a_meta_gradient_that_is_not_finite_moves_nothing():
    made = trainer("maml")
    made.params["body.layers.0.bias"][0] = np.nan
    before = {name: p.clone() for name, p in made.params.items()}
    assert made.step().rejected
    assert all(torch.equal(p.nan_to_num(), before[name].nan_to_num()) for name, p in made.params.items())
    assert made.steps == 1


def test_episodes_come_from_train_classes_and_validation_from_the_others():
    whole = corpus()
    train, held = (np.concatenate(part) for part in (whole.train, whole.held_out))
    assert not set(train.tolist()) & set(held.tolist())
    assert len(whole.held_out) == 7  # 30 % of 24
    _, y = samples()
    assert not set(y[train]) & set(y[held])
    assert corpus(seed=1).fingerprint != whole.fingerprint == corpus().fingerprint


def test_support_and_query_of_an_episode_share_no_row():
    made = trainer("maml")
    lessons = made._episodes.few_shot(np.random.default_rng(0), 5, ways=4, shots=2, queries=4, held_out=False)
    for episode in range(5):
        support = {tuple(row.tolist()) for row in lessons.support_x[episode]}
        assert len(support) == 8
        assert not support & {tuple(row.tolist()) for row in lessons.query_x[episode]}


def descended(made: Trainer, lesson, parts: list[list[int]], rate: float) -> dict:
    """What moved, by torch's own gradients: a step on each part of the support, from a head of zeros."""
    fast = {n: p.clone() for n, p in made.params.items()}
    fast |= {"head.weight": torch.zeros(4, made.network.width), "head.bias": torch.zeros(4)}
    for rows in parts:
        leaves = {n: p.clone().requires_grad_() for n, p in fast.items()}
        logits = made.network.logits(leaves, lesson.support_x[0][rows])
        loss = torch.nn.functional.cross_entropy(logits, lesson.support_y[0][rows])
        grads = torch.autograd.grad(loss, list(leaves.values()))
        fast = {n: p - rate * g for (n, p), g in zip(fast.items(), grads, strict=True)}
    return fast


def test_training_takes_rows_of_each_class_in_turns():
    """Six rows of each of four classes, two of each a step: three parts, and a fourth step begins again."""
    made = trainer("reptile", meta_batch=1, train_shots=6, inner_shots=2, inner_steps=4)
    lesson = made._drawn(np.random.default_rng(mixed_seed(0, 11, 0)))
    parts = [[row for row in range(24) if row % 3 == turn] for turn in (0, 1, 2, 0)]
    for rows in parts:
        assert lesson.support_y[0][rows].bincount().tolist() == [2, 2, 2, 2]
    fast = descended(made, lesson, parts, 0.2)
    before, _ = dict(made.params), made.step()
    for name, p in made.params.items():  # its share of the way, 0.5, of which all is left at the first step
        torch.testing.assert_close(p, before[name] + 0.5 * (fast[name] - before[name]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["reptile", "imaml"])
def test_a_validation_has_shots_and_steps_of_its_own(name):
    made = trainer(name, shots=2, train_shots=5, inner_shots=1, validation_steps=7, inner_lr=0.2, proximal=1e-9)
    found, hits = made.validate(), []
    random = np.random.default_rng(mixed_seed(0, 13))
    asked = made._episodes.few_shot(random, 40, ways=4, shots=2, queries=4, held_out=True)
    for lesson in (asked.at(episode) for episode in range(40)):
        fast = descended(made, lesson, [list(range(8))] * 7, 0.2)
        hits.append((made.network.logits(fast, lesson.query_x[0]).argmax(1) == lesson.query_y[0]).double().mean())
    assert found["accuracy"] == pytest.approx(float(torch.stack(hits).mean()), abs=0.01)  # a tie may go otherwise
    assert made._drawn(np.random.default_rng(0)).support_y.shape == (3, 20)


@pytest.mark.parametrize(
    ("name", "plastic"), [("maml", 4), ("anil", 0), ("oml", 0), ("anml", 0), ("comln", 0), ("supervised", 0)]
)
def test_a_warm_start_says_what_may_move(name, plastic):
    start = trainer(name).initialisation()
    assert len(start.plastic) == plastic
    assert start.head == ("drawn" if name in ("oml", "anml", "supervised") else "zero")
    assert (start.duration is not None) == (name == "comln")
    assert start.order == (2 if name in ("maml", "anil", "oml", "anml") else None)


def test_anml_may_leave_its_trunk_to_the_stream():
    start = trainer("anml", plastic="inner", order=1).initialisation()
    assert all(name.startswith("body.trunk.") for name in start.plastic)
    assert len(start.plastic) == 4
    assert start.order == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 20}, "takes 20 classes .* corpus has 7 classes"),
        ({"queries": 11}, "of 13 rows; .* has 12 rows"),
        ({"train_shots": 9}, "of 13 rows; .* has 12 rows"),
    ],
)
def test_a_corpus_too_small_for_an_episode_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        trainer("maml", **changes)


def test_what_cannot_be_a_warm_start_is_refused():
    own = {"shape": SHAPE, "model": ModelSettings(), "inputs": InputSettings()}
    with pytest.raises(ConfigError, match="'standardise': expected none or scale"):
        Trainer(MetaSettings(algorithm="maml"), corpus(), **own | {"inputs": InputSettings(kind="standardise")})
    with pytest.raises(ConfigError, match=r"'anml', but model.name is 'mlp'"):
        Trainer(MetaSettings(algorithm="anml"), corpus(), **own)


def test_a_run_of_another_configuration_is_not_gone_on_with():
    with pytest.raises(CheckpointError, match=r"begun with settings .* the configuration says"):
        trainer("maml", inner_lr=0.2).restore(trainer("maml").state())
    trainer("maml", steps=7).restore(trainer("maml").state())


def test_a_run_that_was_begun_before_a_key_was_there_goes_on_where_the_key_has_its_default():
    state = trainer("maml").state()
    del state.values["made_by"]["settings"]["train_shots"]
    made = trainer("maml")
    made.restore(state)
    assert made.state().values["made_by"]["settings"]["train_shots"] is None
    with pytest.raises(CheckpointError, match="begun with settings"):
        trainer("maml", train_shots=3).restore(state)


def test_a_corpus_of_another_shape_is_refused(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.zeros((8, 3)), y=np.arange(8))
    for settings, message in [
        (CorpusSettings(path=tmp_path / "c.npz"), r"holds inputs \[8, 3\] and labels \[8\]: expected \[n, 12\]"),
        (CorpusSettings(path=tmp_path / "c.npz", x="images"), "expected an npz file that holds 'images' and 'y'"),
        (CorpusSettings(path=tmp_path / "none.npz"), "cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Corpus.load(settings, shape=SHAPE, seed=0)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    x, y = samples()
    np.savez(tmp_path / "corpus.npz", x=x, y=y)
    values = {
        "state_dir": str(tmp_path / "state"),
        "input": {"shape": [12]},
        "model": {"name": "mlp", "hidden": [16, 8]},
        "corpus": {"path": str(tmp_path / "corpus.npz"), "held_out": 0.3},
        "meta": {"algorithm": "oml", **SMALL, "steps": 20, "validate_every": 10},
        "warm_start": str(tmp_path / "warm.safetensors"),
    }
    (tmp_path / "meta.yaml").write_text(json.dumps(values))
    return tmp_path / "meta.yaml"


def test_the_command_ends_in_a_warm_start_from_which_a_daemon_learns(written):
    done = CliRunner().invoke(app, ["meta-train", str(written), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["steps"] == 20
    assert facts["algorithm"] == "oml, order 2"
    start = load(written.with_name("warm.safetensors"))
    assert start.fingerprint == facts["fingerprint"]
    config = configure(
        {
            "source": {"type": "stdin"},
            "input": {"shape": [12]},
            "learner": {"name": "sgd"},
            "warm_start": str(written.with_name("warm.safetensors")),
        }
    )
    learner = configured_learner.learner(config)
    x, y = samples(seed=1)
    learner.learn(Batch.of(x[:20], y[:20]))
    np.testing.assert_array_equal(learner.answering().arrays["body.layers.0.weight"], start.arrays["body.layers.0.weight"])


class Interrupting(Trainer):
    """Is told to stop in its third step."""

    def step(self):
        report = super().step()
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return report


def test_a_signal_saves_and_the_next_start_goes_on(written, monkeypatch):
    config: MetaConfig = load_meta(written)
    straight = meta_train(load_meta(written, {"state_dir": str(written.parent / "other")}), progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("streamlearn.meta_train.Trainer", Interrupting)
        assert meta_train(config, progress=False)["steps"] == 3
    assert meta_train(config, progress=False) == straight
