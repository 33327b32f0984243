"""What is done at a drift: alert, faster steps, a kept checkpoint; the same however records were polled, and after a crash."""

import json

import msgspec
import numpy as np
import pytest
import structlog

from benchmarks.testbed.fakes import MemorySource, OrderLearner
from benchmarks.testbed.loops import drain, started
from benchmarks.testbed.small import keys
from streamlearn import assemble, config
from streamlearn.checkpoint import Checkpoint, Checkpoints
from streamlearn.drift import Drift, Mark, ReactionKeys, Reactions
from streamlearn.errors import ConfigError
from streamlearn.records import LearnReport, State
from streamlearn.rollback import roll_back
from streamlearn.snapshot import Reference


class HastyLearner(OrderLearner):
    """An `OrderLearner` whose weight moves by a step size of its own; it is right as long as its input says the label."""

    def __init__(self, chunk=3):
        super().__init__(chunk)
        self.pace, self.changes = np.ones(1), []

    def hasten(self, factor):
        if factor != 1.0:
            self.pace *= factor
            self.changes.append((len(self.seen), factor))
        return True

    def predict(self, x, *, about="auto"):
        return np.stack([np.zeros(len(x)), x[:, 0] - 0.5], 1).astype(np.float32)

    def learn(self, batch):
        reports = [self._learn_chunk(batch[i : i + self.chunk]) for i in range(0, len(batch), self.chunk)]
        logits, rejected = (np.concatenate([getattr(each, name) for each in reports]) for name in ("logits", "rejected"))
        return LearnReport(logits, rejected)

    def _learn_chunk(self, chunk):
        before = self.w
        report = super().learn(chunk)
        self.w = before + self.pace * (self.w - before)
        return report

    def state(self):
        return State({"w": self.w.copy(), "pace": self.pace.copy(), "learned": np.array([len(self.seen)])})

    def restore(self, state):
        self.w, self.pace = state.arrays["w"].copy(), state.arrays["pace"].copy()
        self.seen = [0.0] * int(state.arrays["learned"][0])


def turning(n=1800, at=(600, 900)):
    """Records whose input says their label, but for a stretch in which it says the opposite."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, n)
    told = np.where((np.arange(n) >= at[0]) & (np.arange(n) < at[1]), 1 - labels, labels)
    return [msgspec.json.encode([float(x), int(y)]) for x, y in zip(told, labels, strict=True)]


def told(*actions, **then):
    quick = {"warm_up": 120, "refractory": 2000, "clock": 8}
    then = {"on_error": actions, "faster_factor": 4.0, "faster_records": 400} | then
    return Drift.Settings(detectors=("adwin",), adwin=quick, inputs={"detectors": ()}, then=then)


class Listening:
    """A detector that keeps what it is told."""

    def __init__(self):
        self.told = []

    def update(self, value):
        self.told.append(value)
        return False


def test_the_loop_tells_detectors_of_errors_and_of_the_probability_that_was_missing_to_the_label(tmp_path):
    """The learner gives 1 / (1 + e^-0.5) to what its input says: the label, but for some rows in between."""
    values = turning()
    with started(tmp_path, MemorySource({"a[0]": values}), drift=told(), learner=HastyLearner(), every_records=10**6) as loop:
        loop.drift.detectors = {"adwin": (errors := Listening()), "surprise": (surprises := Listening())}
        drain(loop)
    wrong = [float(x != y) for x, y in map(msgspec.json.decode, values)][: len(errors.told)]
    assert errors.told == wrong
    assert 0 < sum(wrong) < len(wrong)
    assert surprises.told == [pytest.approx(1 / (1 + np.exp(0.5 if not each else -0.5))) for each in wrong]


def test_an_alert_lasts_for_so_many_records_and_is_of_its_own_kind():
    reactions = Reactions(ReactionKeys(on_error=("alert",), alert_records=50))
    assert reactions.alerts() == {"error": 0.0, "inputs": 0.0}
    reactions.take([Mark(100, "adwin"), Mark(101, "adwin", "inputs")], 120)
    assert reactions.alerts() == {"error": 1.0, "inputs": 0.0}
    again = Reactions(ReactionKeys(on_error=("alert",)))
    again.restore(State(values=json.loads(json.dumps(reactions.state().values))))
    assert again.alerts() == {"error": 1.0, "inputs": 0.0}
    for each in (reactions, again):
        each.take([], 149)
        assert each.alerts()["error"] == 1.0
        each.take([], 150)
        assert each.alerts()["error"] == 0.0


def test_steps_are_faster_for_a_while_from_a_whole_hundred_of_rows_on(tmp_path):
    learner = HastyLearner()
    source = MemorySource({"a[0]": turning()})
    with (
        structlog.testing.capture_logs() as said,
        started(tmp_path, source, drift=told("faster"), learner=learner, every_records=10**6) as loop,
    ):
        drain(loop)
        (mark,) = loop.drift.marks
        assert 600 < mark.row < 700
        assert 3 < mark.row % 102 < 70, "else it would be there by chance"
        begin = -(-mark.row // 102) * 102  # chunks of three rows: 34 of them are the first hundred
        end = -(-(mark.row + 400) // 102) * 102
        assert learner.changes == [(begin, 4.0), (end, 0.25)]
        assert learner.pace == 1.0
        assert loop.reactions.faster == 1.0
    (line,) = [each for each in said if each["event"] == "drift.detected"]
    assert (line["on"], line["detector"], line["row"]) == ("error", "adwin", mark.row)
    assert line["moved"] == {name: round(each.size, 3) for name, each in zip(loop.moved(mark), mark.moved, strict=True)}
    assert set(line["moved"]) == {"0", "1"}


def test_nothing_of_it_depends_on_how_records_were_polled(tmp_path):
    digests = set()
    for seed in range(5):
        source = MemorySource({"a[0]": turning()}, poll_size=lambda seed=seed: 1 + 40 * seed)
        with started(tmp_path / str(seed), source, drift=told("faster"), learner=HastyLearner(), seed=seed) as loop:
            drain(loop)
            digests.add(loop.checkpoint().state_digest)
    assert len(digests) == 1


@pytest.mark.parametrize("stop", [590, 640, 700, 1050, 1100])
def test_stopped_at_any_point_it_goes_on_to_the_same_bytes(tmp_path, stop):
    values, drift = turning(), told("faster", "alert")
    with started(tmp_path / "straight", MemorySource({"a[0]": values}), drift=drift, learner=HastyLearner()) as loop:
        drain(loop)
        straight = loop.checkpoint().state_digest
    for n in (stop, len(values)):
        with started(tmp_path / "cut", MemorySource({"a[0]": values[:n]}), drift=drift, learner=HastyLearner()) as loop:
            drain(loop)
            loop.begin_checkpoint()
    assert loop.checkpoint().state_digest == straight


def test_a_key_that_was_taken_out_while_steps_were_faster_makes_them_slow_again():
    changes = []
    fast = Reactions(ReactionKeys(on_error=("faster",), faster_factor=3.0, faster_records=100), hasten=changes.append)
    fast.take([Mark(150, "adwin")], 200)
    later = Reactions(ReactionKeys(), hasten=changes.append)
    later.restore(fast.state())
    assert later.room(210) == 90
    later.take([], 300)
    assert changes == [3.0, 1 / 3.0]
    assert later.room(310) is None


def test_the_newest_checkpoint_is_kept_beyond_what_retention_removes_and_can_be_gone_back_to(tmp_path):
    source, learner = MemorySource({"a[0]": turning()}), HastyLearner()
    with started(tmp_path, source, drift=told("keep"), learner=learner, every_records=60, keep=2, seed=1) as loop:
        while not loop.intake.drained:
            loop.turn(1.0)
            loop.writer.wait()
        (mark,) = loop.drift.marks
        store = loop.writer.store
        (kept,) = store.kept()
        number = store.number(kept)
        assert mark.row - 3 * 120 < 3 * number <= mark.row
        assert len(store.regular()) == 2
        assert store.names() == [kept, *store.regular()]
        assert store.oldest_segment() == store.regular()[0]
    gone_back = roll_back(tmp_path, number, resume="now", now_ms=0)
    assert store.read(gone_back.name)[0].state.under("tally").values["learned"] == 3 * number


def test_of_kept_checkpoints_the_oldest_goes_back_to_the_others(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    assert store.keep_newest(2) is None
    for i in range(1, 8):
        store.save(f"0001-{i:08d}", Checkpoint(i, State(values={"n": i}), {}, {"segment": f"{i}"}), created_ms=0)
        if i in {2, 4, 6}:
            store.keep_newest(2)
    assert [store.number(name) for name in store.kept()] == [4, 6]
    assert [store.number(name) for name in store.regular()] == [5, 7]
    assert store.newest()[0].number == 7
    assert store.oldest_segment() == "5"


def test_a_learner_without_step_sizes_is_refused_where_they_are_to_be_faster(tmp_path):
    reads = {"type": "log", "path": str(tmp_path / "log.sqlite")}
    then = {"drift": {"then": {"on_inputs": ["mark", "faster"]}}}

    def made(learner):
        told = config.configure(keys(tmp_path / "state", reads, **then) | {"learner": learner})
        return assemble.prequential(told, state_dir=tmp_path / "state", publisher=Reference())

    with pytest.raises(
        ConfigError, match=r"drift\.then\.on_inputs has 'faster', but learner 'er' has no step sizes of its own"
    ):
        made({"name": "er"})
    loop = made({"name": "la-maml"})
    assert loop.reactions.room(30) == 70
    loop.close()
