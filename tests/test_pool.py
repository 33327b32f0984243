"""The pool beyond what every learner owes: its gate, its weights, its two kinds of input, its members alone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.learners.alone import LabelLaw, QuantileRamps
from streamlearn.learners.pool import MEMBERS, Pool
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Batch, Snapshot, no_evidence, stacked_evidence
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.forms import form_named
from streamlearn.serving.http import Application
from streamlearn.serving.settings import Settings as HttpSettings
from streamlearn.settings import Section, read
from streamlearn.snapshot import Reference

SMALL: dict[str, Any] = {
    "partitions": {"trees": 6, "depth": 4},
    "steady_partitions": {"trees": 6, "depth": 4},
    "settled_partitions": {"trees": 6, "depth": 4},
    "plastic_mlp": {"hidden": [9, 6], "recent_rows": 20},
    "gate": {"half_life": 20.0, "window": 30, "every": 5, "quantile": 0.3},
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


def test_a_request_says_what_it_is_about(learned: Pool) -> None:
    """Over HTTP, with the default when it says nothing; each of the three answers differs from the others."""
    reference, x = Reference(), turning(60, seed=1).x
    reference.publish(Snapshot(1, learned.answering(), ("a", "b", "c"), (4,), 0))
    inputs = [{"name": "features", "shape": [60, 4], "datatype": "FP32", "data": x.ravel().tolist()}]

    async def asked() -> list[Array]:
        transport = httpx.ASGITransport(Application(Endpoint(reference, model_name="digits", settings=HttpSettings())))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            found = []
            for parameters in ({"about": "now"}, {"about": "ever"}, {"about": "auto"}, {}):
                body = {"inputs": inputs, "outputs": [{"name": "probabilities"}], "parameters": parameters}
                answer = await client.post("/v2/models/digits/infer", json=body)
                found.append(np.array(answer.json()["outputs"][0]["data"]).reshape(60, 3))
            return found

    now, ever, auto, unsaid = asyncio.run(asked())
    for about, answer in zip(("now", "ever", "auto", "auto"), (now, ever, auto, unsaid), strict=True):
        np.testing.assert_allclose(answer, np.exp(learned.predict(x, about=about)), rtol=1e-4, atol=1e-5)
    assert min(np.abs(a - b).max() for a, b in ((now, ever), (now, auto), (ever, auto))) > 0.01


@pytest.mark.parametrize("name", MEMBERS)
def test_each_member_can_be_the_only_one(name: Any) -> None:
    made, batch = pool(members=(name,)), turning(60)
    made.learn(batch[:30])
    late(made, batch[30:], delay=10)
    x = batch.x[50:]
    for about in ("now", "ever", "auto"):
        np.testing.assert_allclose(served(made, x, about), made.predict(x, about=about), rtol=1e-5, atol=1e-5)
    assert set(made.learn(batch[:1]).measures) >= {f"member_weight/{name}"}


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


def runs(count: int, seed: int) -> Batch:
    """Labels that stay for 25 rows in the mean; inputs tell them apart badly."""
    random = np.random.default_rng(seed)
    y = np.zeros(count, np.int64)
    for n in range(1, count):
        y[n] = random.integers(0, 3) if random.random() < 1 / 25 else y[n - 1]
    return Batch.of(random.normal(size=(count, 4)) + np.eye(3, 4)[y], y)


def late(made: Pool, batch: Batch, *, delay: int, wants: Callable[[Array], Array] = lambda evidence: evidence) -> float:
    """Share of right answers in the last three quarters; rows are learned `delay` rows after they came, ten at a time."""
    right: list[bool] = []
    kept: list[Array] = []
    for start in range(0, len(batch), 10):
        answer, labels = made.answer(batch.x[start : start + 10]), batch.labels[start : start + 10]
        kept.append(wants(answer.evidence))
        right += (answer.logits.argmax(1) == labels).tolist() if answer.logits.shape[1] else [False] * 10
        if start >= delay:
            known = slice(start - delay, start - delay + 10)
            made.learn(replace(batch[known], evidence=kept[known.start // 10]))
    return float(np.mean(right[len(right) // 4 :]))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_law_of_labels_does_no_harm_where_labels_come_late(seed: int) -> None:
    """One of 60 rows ago says nothing. Three standard deviations of the difference of two shares of 3,000 rows at a half."""
    batch, others = runs(4000, seed), ("quantile-ramps", "steady-ramps")
    with_law, without = (late(pool(members=members), batch, delay=60) for members in ((*others, "label-law"), others))
    assert with_law > without - 3 * np.sqrt(2 * 0.25 / 3000)
    assert with_law > 0.45, "by the inputs alone"


def test_a_member_is_weighed_by_what_it_said_when_asked_not_by_what_it_would_say_now() -> None:
    """With the label before known, the law is right 24 times of 25; with one of 60 rows ago, once in three."""
    batch, members = runs(2000, 0), ("quantile-ramps", "label-law")
    at_once, asked, now = (pool(members=members) for _ in range(3))
    at_once.learn(batch)
    late(asked, batch, delay=60)
    late(now, batch, delay=60, wants=lambda evidence: evidence[:, :0])
    weights = [made.learn(batch[-1:]).measures["member_weight/label-law"] for made in (at_once, asked, now)]
    assert weights[1] < 0.1
    assert min(weights[0], weights[2]) > 0.5


@pytest.mark.parametrize("quantile", [0.0, 0.3])
def test_what_waits_does_not_depend_on_who_else_was_asked_or_learned_at_once(quantile: float) -> None:
    """Answers that were given one by one, some labels of them met since, some rows with labels at once between them."""
    batch, random = turning(90), np.random.default_rng(0)
    batch.labels[60:] = np.arange(30) % 20
    one, other = (pool(gate={**SMALL["gate"], "quantile": quantile}) for _ in range(2))
    one.learn(batch[:30])
    other.learn(batch[:30])
    together = one.answer(batch.x[30:60]).evidence
    singly = [other.answer(batch.x[n : n + 1]).evidence for n in range(30, 60)]
    others = [no_evidence(1)] * 30
    order = random.permutation(60)
    rows = stacked_evidence([[*singly, *others][i] for i in order])
    mixed = replace(Batch.of(batch.x[30 + order], batch.labels[30 + order]), evidence=rows)
    other.learn(mixed[:17])
    other.learn(mixed[17:])
    padded = np.pad(rows, ((0, 0), (0, 5)), constant_values=np.nan)
    np.testing.assert_allclose(rows[np.argsort(order)][:30], together, rtol=1e-5, atol=1e-5)
    one.learn(replace(mixed, evidence=padded))
    mine, theirs = one.state().arrays, other.state().arrays
    for name, array in theirs.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)


def test_the_gates_threshold_is_a_quantile_of_the_scores_that_decided() -> None:
    """Rows are asked in tens, 50 rows before they are learned: the last 30 of the 150 that were learned are rows 120 to 149."""
    made, asked = pool(), []

    def kept(evidence: Array) -> Array:
        asked.extend(evidence[:, 0])
        return evidence

    late(made, turning(200), delay=50, wants=kept)
    arrays = made.state().arrays
    np.testing.assert_array_equal(np.sort(arrays["presence/scores"]), np.sort(asked[120:150]))
    assert arrays["presence/threshold"][0] == np.sort(asked[120:150])[9]


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


@pytest.mark.parametrize("name", Pool.Settings.model_fields)
def test_a_member_that_is_given_one_setting_keeps_its_own_defaults(name: str) -> None:
    """Each is read from a configuration that names one key of it, at that key's default: nothing else may change."""
    default = getattr(Pool.Settings(), name)
    for key, value in default.model_dump().items() if isinstance(default, Section) else ():
        assert read(Pool.Settings, {name: {key: value}}, path="learner") == Pool.Settings()


@pytest.mark.parametrize(("first", "kind"), [("quantile_ramps", "ramps"), ("partitions", "partitions")])
def test_members_of_one_kind_differ_in_their_rates_alone(first: str, kind: str) -> None:
    own = Pool.Settings()
    plain = getattr(own, first).model_dump()
    for name, slower in (("steady", 10), ("settled", 100)):
        assert getattr(own, f"{name}_{kind}").model_dump() == plain | {"rate": pytest.approx(plain["rate"] / slower)}


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
