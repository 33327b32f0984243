"""Members of the pool against slow, obvious versions of themselves, in float64."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.kernels import pool as pool_kernel
from streamlearn.kernels.rows import chance
from streamlearn.kernels.rows import log_softmax as log_softmax_kernel
from streamlearn.layout import Layout
from streamlearn.learners.members import columns, label_law, partitions, plastic_mlp, quantile_ramps
from streamlearn.learners.members.columns import Columns
from streamlearn.learners.members.earlier import Earlier
from streamlearn.learners.members.member import NEVER, Rows, Size
from streamlearn.learners.pool import PoolSettings, Weights
from streamlearn.records import Array

EXACT = {"rtol": 1e-10, "atol": 1e-12}
LABELS, COLUMNS = 4, 3
shapes = given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
few = settings(max_examples=20, deadline=None)


class Plain(NamedTuple):
    """What the obvious versions go through: one row, and the labels that may answer it."""

    z: Array
    u: Array
    label: int
    before: list[int]  # labels met before
    after: list[int]  # and with the row's own


def rows_of(seed: int, count: int) -> Rows:
    random = np.random.default_rng(seed)
    labels = random.integers(0, LABELS, count)
    learned = random.random(count) < 0.8
    numbers = np.cumsum(learned) - learned
    admitted = np.full(LABELS, NEVER)
    for label, number, is_learned in zip(labels, numbers, learned, strict=True):
        if is_learned and admitted[label] == NEVER:
            admitted[label] = number
    u = random.choice([0.0, 1.0, 0.25, *random.random(5)], (count, COLUMNS))
    lines = np.zeros((count, 0), np.int64)
    return Rows(random.normal(size=(count, COLUMNS)), u, labels, learned, numbers, admitted, LABELS, lines)


def plain_of(rows: Rows) -> list[tuple[Plain, bool]]:
    met: list[int] = []
    found = []
    for z, u, label, learned in zip(rows.z, rows.u, rows.labels.tolist(), rows.learned.tolist(), strict=True):
        after = sorted({*met, label}) if learned else met
        found.append((Plain(z, u, label, met, after), learned))
        met = after
    return found


def log_softmax(scores: Array, labels: Sequence[int]) -> Array:
    answer = np.full(len(scores), -np.inf)
    if labels:
        powers = np.exp(scores[list(labels)] - scores[list(labels)].max())
        answer[list(labels)] = np.log(powers / powers.sum())
    return answer


def delta(scores: Array, row: Plain) -> Array:
    return np.exp(log_softmax(scores, row.after)) - np.eye(len(scores))[row.label]


def size(seed: int = 0) -> Size:
    return Size(COLUMNS, LABELS, "float64", seed)


@few
@shapes
def test_quantile_ramps_are_a_linear_softmax_on_ramps(seed: int, count: int) -> None:
    rows, own = rows_of(seed, count), quantile_ramps.Settings(ramps=3, rate=0.2, share=1.0)
    weights, expected = np.zeros((COLUMNS * 3 + 1, LABELS)), []
    for row, learned in plain_of(rows):
        x = np.array([min(max(3 * u - k, 0.0), 1.0) for u in row.u for k in range(3)] + [1.0])
        expected.append(log_softmax(x @ weights, row.before))
        if learned:
            weights = weights - min(0.2, 1.0 / (x @ x)) * np.outer(x, delta(x @ weights, row))
    found = quantile_ramps.QuantileRamps(own, size()).run(rows)["quantile-ramps"]
    np.testing.assert_allclose(found, expected, **EXACT)


@few
@shapes
def test_partitions_add_up_the_cells_that_hold_a_row(seed: int, count: int) -> None:
    rows, own = rows_of(seed, count), partitions.Settings(trees=3, depth=4, rate=2.0)
    cuts = partitions.cuts(own, columns=COLUMNS, dtype="float64", seed=seed)
    cells: dict[tuple[int, str], Array] = {}
    expected = []
    for row, learned in plain_of(rows):
        path = [(tree, way) for tree in range(3) for way in ways(cuts.column[tree], cuts.threshold[tree], row.u, 4)]
        scores = sum((cells.get(cell, np.zeros(LABELS)) for cell in path), np.zeros(LABELS))
        expected.append(log_softmax(scores, row.before))
        if learned:
            moved = delta(scores, row) * 2.0 / len(path)
            cells |= {cell: cells.get(cell, np.zeros(LABELS)) - moved for cell in path}
    found = partitions.Partitions(own, size(seed)).run(rows)["partitions"]
    np.testing.assert_allclose(found, expected, **EXACT)


def ways(column: Array, threshold: Array, u: Array, depth: int) -> list[str]:
    """Each level's cell as the turns that lead there."""
    found = [""]
    for level in range(depth):
        node = 2**level - 1 + int(found[-1] or "0", 2)
        found.append(found[-1] + ("1" if u[column[node]] > threshold[node] else "0"))
    return found[1:]


def test_cuts_lie_within_their_cells() -> None:
    """Rows that go left at every node above fill no empty cell: each of many places has a share of its own."""
    cuts = partitions.cuts(partitions.Settings(trees=8, depth=3), columns=1, dtype="float64", seed=0)
    places = np.linspace(0, 1, 100_001)[:, None]
    for tree in range(8):
        cells = {ways(cuts.column[tree], cuts.threshold[tree], u, 3)[-1] for u in places[::7]}
        edges = np.sort(cuts.threshold[tree])
        wide = int((np.diff([0.0, *edges, 1.0]) > 1e-4).sum())
        assert len(cells) >= wide
    assert (cuts.threshold > 0).all()
    assert (cuts.threshold < 1).all()


def numbers(seed: int, count: int, draw: int) -> float:
    """SplitMix64 with Python's integers."""
    mask = (1 << 64) - 1
    mixed = (seed + 0x9E3779B97F4A7C15 * (count * 256 + draw + 1)) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53)


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 255))
def test_chances_are_those_of_splitmix(seed: int, count: int, draw: int) -> None:
    assert chance(np.uint64(seed), count, draw) == numbers(seed, count, draw)


@few
@given(seed=st.integers(0, 10_000), count=st.integers(1, 25), hidden=st.sampled_from([(5,), (20,), (6, 18), (4, 3, 5)]))
def test_a_plastic_mlp_steps_as_autograd_does(seed: int, count: int, hidden: tuple[int, ...]) -> None:
    rows = rows_of(seed, count)
    own = plastic_mlp.Settings(hidden=hidden, rate=0.5, clip_norm=0.3, replay_rows=2, recent_rows=3)
    member = plastic_mlp.PlasticMLP(own, size(seed))
    layers = [torch.tensor(a) for name, a in member.state().arrays.items() if name.startswith("layers.")]
    expected, ring = [], []
    met = 0
    for number, (row, learned) in zip(rows.numbers.tolist(), plain_of(rows), strict=True):
        scores = forward(layers, torch.tensor(row.z)[None])[0].numpy()
        expected.append(log_softmax(scores, row.before))
        if learned:
            drawn = [ring[int(numbers(seed, number, r) * len(ring))] for r in range(2)] if ring else []
            layers = stepped(layers, [(row.z, row.label), *drawn], row.after)
            ring[met % 3 : met % 3 + 1] = [(row.z, row.label)]
            met += 1
    found = member.run(rows)["plastic-mlp"]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def forward(layers: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for i, layer in enumerate(layers):
        x = (torch.relu(x) if i else x) @ layer[:-1] + layer[-1]
    return x


def stepped(layers: Sequence[torch.Tensor], batch: Sequence[tuple[Array, int]], labels: list[int]) -> list[torch.Tensor]:
    leaves = [layer.clone().requires_grad_() for layer in layers]
    x, y = torch.tensor(np.array([z for z, _ in batch])), torch.tensor([labels.index(label) for _, label in batch])
    loss = torch.nn.functional.cross_entropy(forward(leaves, x)[:, labels], y)
    grads = torch.autograd.grad(loss, leaves)
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
    return [layer - 0.5 * min(1.0, 0.3 / (norm + 1e-6)) * g for layer, g in zip(layers, grads, strict=True)]


@few
@shapes
def test_the_label_law_counts_what_follows(seed: int, count: int) -> None:
    rows, own = rows_of(seed, count), label_law.Settings(discount=0.9, prior=0.5, lines=2)
    stays, moves, met = np.zeros((3, 2)), np.zeros((3, LABELS)), np.zeros(LABELS)
    last, expected = None, []
    for row, learned in plain_of(rows):
        chances = follows(last, row.before, stays, moves, met)
        expected.append([math.log(chances[c]) if c in chances else -math.inf for c in range(LABELS)])
        if learned:
            if last is not None:
                line = min(last, 2)
                stays[line] = 0.9 * stays[line] + [row.label == last, 1]
                if row.label != last:
                    moves[line] = 0.9 * moves[line] + np.eye(LABELS)[row.label]
            met = 0.9 * met + np.eye(LABELS)[row.label]
            last = row.label
    found = label_law.LabelLaw(own, size()).run(rows)["label-law"]
    np.testing.assert_allclose(found, expected, **EXACT)


def follows(last: int | None, known: Sequence[int], stays: Array, moves: Array, met: Array) -> dict[int, float]:
    others = [c for c in known if c != last]
    frequency = {c: 0.5 * (met[c] + 1) / sum(met[o] + 1 for o in others) for c in others}
    if last is None:
        return {c: frequency[c] / sum(frequency.values()) for c in others}
    line = min(last, 2)
    counts = {c: frequency[c] + moves[line, c] for c in others}
    stay = (stays[line, 0] + 1) / (stays[line, 1] + 2) if others else 1.0
    return {last: stay} | {c: (1 - stay) * counts[c] / sum(counts.values()) for c in others}


@few
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_columns_are_standardised_and_placed_by_the_rows_before(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    x = random.choice([-1.0, 0.0, 2.0, *random.normal(size=6) * 3], (count, COLUMNS)).astype(np.float32)
    shown = Columns(
        columns.Settings(edges=5, clip=2.0), layout=Layout.plain(COLUMNS, missing=False), dtype="float64", seed=seed
    )
    view = shown.run(x, np.ones(count, bool))
    edges_at = 0
    for n in range(count):
        past = x[:n].astype(np.float64)
        if n >= 8 and n >= edges_at * 3 // 2:
            edges_at = n
        for f in range(COLUMNS):
            deviation = past[:, f].std() if n else 0.0
            z = (x[n, f] - past[:, f].mean()) / deviation if deviation > 1e-9 else 0.0
            np.testing.assert_allclose(view.z[n, f], np.clip(z, -2, 2), rtol=1e-6, atol=1e-9)
            edges = np.quantile(past[:edges_at, f], np.linspace(0, 1, 5)).astype(np.float32) if edges_at else None
            np.testing.assert_allclose(view.u[n, f], placed(x[n, f], edges), rtol=1e-5, atol=1e-6)


def placed(value: float, edges: Array | None) -> float:
    if edges is None:
        return 0.5
    if value <= edges[0]:
        return 0.0
    if value >= edges[-1]:
        return 1.0
    equal = np.flatnonzero(edges == value)
    if len(equal):
        return float(equal.mean()) / (len(edges) - 1)
    return float(np.interp(value, edges, np.linspace(0, 1, len(edges))))


def test_one_reading_of_a_broken_sensor_does_not_flatten_a_column() -> None:
    shown = Columns(columns.Settings(), layout=Layout.plain(1, missing=False), dtype="float64", seed=0)
    x = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
    x[300] = 1e30
    view = shown.run(x, np.ones(500, bool))
    assert view.z[300, 0] == 5.0
    assert 0.7 < view.z[301:].std() < 1.1


def test_a_missing_value_is_shown_as_missing_and_changes_no_statistic() -> None:
    x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    gaps = x.copy()
    gaps[20:, 0] = np.nan
    whole, holed = (
        Columns(columns.Settings(missing=True), layout=Layout.plain(2, missing=True), dtype="float64", seed=0) for _ in range(2)
    )
    view, seen = whole.run(x, np.ones(40, bool)), holed.run(gaps, np.ones(40, bool))
    assert (seen.z[20:, 0] == 0).all()
    assert (seen.u[20:, 0] == 0.5).all()
    np.testing.assert_array_equal(seen.z[:, 2:], np.isnan(gaps))
    np.testing.assert_array_equal(seen.z[:, 1], view.z[:, 1])
    assert holed.state().arrays["counts"].tolist() == [20, 40]


@few
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), late=st.sampled_from([0.0, 0.5, 1.0]))
def test_pool_weights_follow_the_gradient_of_the_pools_own_loss_when_it_was_asked(seed: int, count: int, late: float) -> None:
    """For a row that was answered earlier that is what was said then, of the labels known then, not what would be said now.
    The later its label, the smaller the step."""
    rows, random = rows_of(seed, count), np.random.default_rng(seed + 1)
    lag = np.where(random.random(count) < late, random.integers(0, 500, count), -1)
    known = [
        row.before if n < 0 else row.before[: len(row.before) // 2] for n, (row, _) in zip(lag, plain_of(rows), strict=True)
    ]
    now = {name: said(random, [row.before for row, _ in plain_of(rows)]) for name in "abc"}
    then = {name: said(random, known) for name in "abc"}
    own = PoolSettings(rate=0.2, fade=0.9, floor=0.05)
    weights, squares, expected = torch.full((3,), 1 / 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), []
    for n, (row, learned) in enumerate(plain_of(rows)):
        expected.append(np.full(LABELS, -np.inf))
        if row.before:
            expected[-1][row.before] = mixed(now, n, row.before, weights).numpy()
        if learned and row.label in known[n]:
            leaf = weights.clone().requires_grad_()
            asked = mixed(now if lag[n] < 0 else then, n, known[n], leaf)
            (grad,) = torch.autograd.grad(-asked[known[n].index(row.label)], leaf)
            squares = 0.9 * squares + grad**2
            weights = weights - 0.2 / (1 + 0.1 * max(lag[n], 0)) * grad / (squares.sqrt() + 1e-8)
    pool = Weights(["a", "b", "c"], own)
    np.testing.assert_allclose(pool.run(now, rows, Earlier(lag, lag * 0.0, then)), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(list(pool.values().values()), weights, rtol=1e-8, atol=1e-10)


def said(random: np.random.Generator, known: Sequence[Sequence[int]]) -> Array:
    return np.array([log_softmax(random.normal(size=LABELS), labels) for labels in known])


def mixed(answers: Mapping[str, Array], n: int, labels: list[int], weights: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of row n's `labels`, by three members."""
    chances = np.exp(np.stack([answers[name][n, labels] for name in "abc"]))
    return torch.log_softmax(weights @ torch.tensor(np.log(0.95 * chances + 0.05 / len(labels))), 0)


def test_a_label_that_was_not_met_has_no_part_in_the_softmax_however_great_its_score() -> None:
    answer = np.zeros(3)
    log_softmax_kernel(np.array([1e6, 1.0, 2.0]), np.array([NEVER, 0, 3]), 5, answer)
    np.testing.assert_allclose(answer, [-np.inf, -np.log1p(np.e), -np.log1p(1 / np.e)])


def test_kernels_take_a_pool_of_one() -> None:
    rows = rows_of(0, 5)
    trust = pool_kernel.Trust(np.ones(1), np.zeros(1))
    now = np.array([[log_softmax(np.arange(4.0), row.before) for row, _ in plain_of(rows)]])
    answers, out = pool_kernel.Answers(now, np.full(5, -1), np.zeros((1, 0, LABELS))), np.zeros((5, LABELS))
    pool_kernel.mix(answers, rows._replace(learned=np.zeros(5, bool)), pool_kernel.Pace(0.1, 0.9, 1e-12), trust, out)
    np.testing.assert_allclose(out, now[0], rtol=1e-8, atol=1e-10)
