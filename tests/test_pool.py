"""The pool beyond what every learner owes: its gate, its weights, its two kinds of input, its members alone."""

from typing import Any

import numpy as np
import pytest

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners.alone import LabelLaw, QuantileRamps
from streamlearn.learners.pool import MEMBERS, Pool
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Batch
from streamlearn.serving.forms import form_named

SMALL: dict[str, Any] = {
    "partitions": {"trees": 6, "depth": 4},
    "steady_partitions": {"trees": 6, "depth": 4},
    "settled_partitions": {"trees": 6, "depth": 4},
    "plastic_mlp": {"hidden": [9, 6], "recent_rows": 20},
    "gate": {"present_rows": 30, "past_rows": 20, "every": 5, "quantile": 0.3},
}
MODEL = ModelSettings(hidden=(9, 6))


def pool(shape: tuple[int, ...] = (4,), transform: InputSettings | None = None, **options: Any) -> Pool:
    return Pool(Pool.Settings(**{**SMALL, **options}), Task(shape, model=MODEL, inputs=transform or InputSettings()))


def turning(count: int, *, shape: tuple[int, ...] = (4,), seed: int = 0) -> Batch:
    """Three classes around centres that wander off."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = (
        random.normal(size=(count, int(np.prod(shape))))
        + np.outer(y, [1.0, -1.0, 0.0, 2.0])
        + np.linspace(0, 6, count)[:, None]
    )
    return Batch.of(x.reshape(count, *shape), y)


@pytest.fixture(scope="module")
def learned() -> Pool:
    made = pool()
    made.learn(turning(120))
    return made


def served(learner: Pool, x: Array, about: str) -> Array:
    answering = learner.answering()
    return form_named(answering.form)(answering.arrays, {**answering.settings, "about": about}, x)


@pytest.mark.parametrize("about", ["now", "ever", "auto"])
def test_servers_answer_as_the_pool_does_whatever_the_question_is_about(learned: Pool, about: Any) -> None:
    x = turning(60, seed=1).x
    np.testing.assert_allclose(served(learned, x, about), learned.predict(x, about=about), rtol=1e-5, atol=1e-5)


def test_questions_about_the_past_are_answered_from_it() -> None:
    """Rows where the stream began get the fallback's answer; rows where it is now, the present's."""
    learned = pool(gate={**SMALL["gate"], "quantile": 0.1})
    learned.learn(turning(120))
    old, new = turning(120).x[:20], turning(120, seed=2).x[-20:]
    now, auto = learned.predict(np.concatenate([old, new]), about="now"), learned.predict(np.concatenate([old, new]))
    same = (now == auto).all(1)
    assert same[:20].mean() < 0.2
    assert same[20:].mean() > 0.5


def test_without_a_gate_every_question_is_about_the_present() -> None:
    made = pool(gate={"quantile": 0.0})
    made.learn(turning(120))
    x = turning(120).x[:20]
    np.testing.assert_array_equal(made.predict(x), made.predict(x, about="now"))
    np.testing.assert_allclose(served(made, x, "auto"), made.predict(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_each_row_is_reported_as_it_would_have_been_predicted(shape: tuple[int, ...]) -> None:
    made, batch = pool(shape), turning(60, shape=shape)
    for n in range(60):
        expected = made.predict(batch.x[n : n + 1])
        np.testing.assert_allclose(made.learn(batch[n : n + 1]).logits, expected, rtol=1e-5, atol=1e-5)


def test_no_question_is_no_answer(learned: Pool) -> None:
    none = np.zeros((0, 4), np.float32)
    assert learned.predict(none).shape == served(learned, none, "auto").shape == (0, 3)


def test_answers_are_log_probabilities(learned: Pool) -> None:
    np.testing.assert_allclose(np.exp(learned.predict(turning(9).x)).sum(1), 1.0, rtol=1e-5)


def test_every_members_weight_is_reported(learned: Pool) -> None:
    measures = learned.learn(turning(10, seed=3)).measures
    assert {name for name in measures if name.startswith("member_weight/")} == {f"member_weight/{name}" for name in MEMBERS}
    assert 0.0 <= measures["answered_from_past_ratio"] <= 1.0


def test_a_member_that_guesses_loses_its_weight() -> None:
    """Labels are independent of each other, so the law of labels knows nothing; inputs tell them apart. What it says is the
    same for all labels, so what weight it keeps does not matter."""
    made = pool(members=("quantile-ramps", "label-law"))
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 1500)
    measures = made.learn(Batch.of(random.normal(size=(1500, 4)) + 2 * y[:, None], y)).measures
    assert measures["member_weight/quantile-ramps"] > 3 * abs(measures["member_weight/label-law"])


def test_members_can_be_chosen() -> None:
    made = pool(members=("quantile-ramps", "label-law"))
    made.learn(turning(40))
    assert set(made.answering().settings["now"]) == {"quantile-ramps", "label-law"}
    assert made.memory_capacity == 0
    x = turning(5).x
    np.testing.assert_allclose(served(made, x, "ever"), made.predict(x, about="ever"), rtol=1e-5, atol=1e-5)


def test_image_like_inputs_are_taken_as_they_are_on_one_scale() -> None:
    x = np.random.default_rng(0).random((50, 3, 3)).astype(np.float32)
    made = pool((3, 3))
    made.learn(Batch.of(x, np.arange(50) % 2))
    arrays = made.answering().arrays
    np.testing.assert_allclose(arrays["field.range"], [x.min(), x.max()])
    assert "columns.mean" not in arrays
    np.testing.assert_allclose(served(made, x, "auto"), made.predict(x), rtol=1e-5, atol=1e-5)


def test_a_vector_can_be_declared_an_array() -> None:
    made = pool((4,), InputSettings(kind="scale", factor=0.5), inputs={"kind": "array"})
    made.learn(turning(40))
    assert made.answering().arrays["field.factor"].tolist() == [0.5]
    x = turning(9, seed=4).x
    np.testing.assert_allclose(served(made, x, "auto"), made.predict(x), rtol=1e-5, atol=1e-5)


def test_missing_values_are_learned_where_they_are_declared() -> None:
    batch = turning(80)
    batch.x[::3, 1] = np.nan
    refusing, taking = pool(), pool(inputs={"missing": True})
    assert refusing.learn(batch).rejected.tolist() == np.isnan(batch.x).any(1).tolist()
    assert not taking.learn(batch).rejected.any()
    x = batch.x[:12]
    np.testing.assert_allclose(served(taking, x, "auto"), taking.predict(x), rtol=1e-5, atol=1e-5)
    assert np.isfinite(taking.predict(x)).all()


def test_an_infinite_value_is_refused_even_so() -> None:
    batch = turning(5)
    batch.x[2, 0] = np.inf
    assert pool(inputs={"missing": True}).learn(batch).rejected.tolist() == [False, False, True, False, False]


def test_a_refused_row_changes_nothing_of_what_follows() -> None:
    batch, holed, without = turning(60), pool(), pool()
    bad = turning(60)
    bad.x[10:13] = np.inf
    kept = np.r_[:10, 13:60]
    holed.learn(bad[:30])
    holed.learn(bad[30:])
    without.learn(Batch.of(batch.x[kept], batch.labels[kept]))
    mine, theirs = holed.state().arrays, without.state().arrays
    for name, array in theirs.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)


def test_the_law_of_labels_alone_follows_runs() -> None:
    y = np.repeat(np.arange(60) % 3, 10)
    made = LabelLaw(LabelLaw.Settings(), Task((2,)))
    logits = made.learn(Batch.of(np.zeros((600, 2)), y)).logits
    right = logits.argmax(1) == y
    assert right[300:].mean() == 0.9
    np.testing.assert_array_less(-0.5, made.predict(np.zeros((1, 2), np.float32))[0, y[-1]])


def test_a_network_that_servers_cannot_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="sliding-look-ahead"):
        Pool(Pool.Settings(), Task((8, 8), model=ModelSettings(name="conv")))


def test_a_checkpoint_of_other_columns_is_refused() -> None:
    kept = QuantileRamps(QuantileRamps.Settings(), Task((3,)))
    kept.learn(Batch.of(np.ones((4, 3)), np.zeros(4)))
    with pytest.raises(CheckpointError, match=r"checkpoint holds .* expected"):
        QuantileRamps(QuantileRamps.Settings(), Task((4,))).restore(kept.state())


@pytest.mark.parametrize("kernel", ["numba", "torch"])
def test_beside_the_report_stands_what_the_slow_weights_would_have_said(kernel: Any) -> None:
    made = SlidingLookAhead(SlidingLookAhead.Settings(kernel=kernel), Task((4,), model=MODEL))
    one, batch = SlidingLookAhead(SlidingLookAhead.Settings(kernel=kernel), Task((4,), model=MODEL)), turning(30)
    batch.x[11, 0] = np.nan
    report, slow = made.learn_both(batch)
    for n in range(30):
        expected = one.predict(batch.x[n : n + 1], about="ever")
        np.testing.assert_allclose(slow[n : n + 1, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(report.logits[n, : expected.shape[1]], one.learn(batch[n : n + 1]).logits[0], rtol=1e-4)
