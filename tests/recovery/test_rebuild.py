"""`streamlearn replay --until`: the state of any position of the past, as the daemon itself had it there."""

import itertools
import json
import random
import shutil
from itertools import pairwise

import pytest

import connectors
from benchmarks.reliability.stream import Journalled
from benchmarks.testbed.fakes import MemorySource, PairDecoder
from benchmarks.testbed.loops import drain, loop_on, started
from benchmarks.testbed.small import append, configured, samples
from streamlearn import repetition
from streamlearn.checkpoint import Checkpoints
from streamlearn.due import Due
from streamlearn.errors import ConfigError, SourceError
from streamlearn.pending import Pending, Settings
from streamlearn.prefetch import Prefetch
from streamlearn.records import Message
from tests import late
from tests.late import LateDecoder
from tests.test_prequential import stream

STOPS = (83, 157, 230)
RECORDS = STOPS[-1]


@pytest.fixture(scope="module")
def ran(_forks, tmp_path_factory):
    """A daemon that took a checkpoint at each of the stops, and keeps the newest two."""
    folder = tmp_path_factory.mktemp("ran")
    log, state = folder / "samples.sqlite", folder / "state"
    keys = {"checkpoint": {"every_records": 10**6, "every_s": 1e6, "keep": 2}}
    config = configured(state, {"type": "log", "path": str(log), "on_gap": "skip"}, **keys)
    decided = Journalled(state)
    for begin, end in pairwise((0, *STOPS)):
        append(log, samples(RECORDS)[begin:end])
        life = _forks.start("run", config, "--set", "source.poll_records=9")
        life.until(lambda end=end: decided() == end, "the last record being taken")
        life.stop()
    store = Checkpoints(state / "checkpoints")
    kept = [store.read(name)[1] for name in store.names()]
    assert [one.positions["samples[0]"] for one in kept] == [*STOPS[1:]]
    return config, state, kept


def rebuilt(forks, config, *arguments):
    life = forks.run("replay", config, "--json", *arguments)
    assert life.code == 0, life.stderr
    return json.loads(life.stdout)


def test_what_it_rebuilds_is_what_the_daemon_had_there(ran, tmp_path, forks):
    config, state, kept = ran
    newest, before = kept[-1], {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    (state / "checkpoints" / newest.name).rename(tmp_path / newest.name)  # it has to come from the one before it
    again = rebuilt(forks, config, "--until", f"samples[0]@{RECORDS}", "--to", tmp_path / "past")
    (tmp_path / newest.name).rename(state / "checkpoints" / newest.name)
    assert (again["state_digest"], again["number"]) == (newest.state_digest, newest.number)
    assert Checkpoints(tmp_path / "past" / "checkpoints").newest()[1].state_digest == newest.state_digest
    position = random.Random(0).randint(STOPS[1] + 1, RECORDS - 1)
    again = rebuilt(forks, config, "--until", f"samples[0]@{position}")
    straight = tmp_path / "samples.jsonl"
    straight.write_bytes(b"".join(value + b"\n" for value in samples(RECORDS)[:position]))
    assert again["state_digest"] == rebuilt(forks, config, "--from", straight)["state_digest"]
    assert before == {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}, "nothing was changed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--until", "samples[0]@3"], 2, "samples[0]@3 is before the oldest checkpoint that is kept"),
        (["--until", "samples[0]@999"], 2, f"samples[0] ends at {RECORDS}: samples[0]@999 is not there yet"),
        (["--until", "orders[3]@200"], 2, "orders[3] is not read: expected one of samples[0]"),
        (["--until", "yesterday"], 2, "--until 'yesterday' names no position: expected one like 'orders[3]@88112'"),
        (["--until", "samples[0]@200", "--to", "."], 2, "--to . is there already: expected the name of a new directory"),
        ([], 2, "expected either --from FILE"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_in_one_line(ran, forks, arguments, code, words):
    config, _, _ = ran
    life = forks.run("replay", config, *arguments)
    assert (life.code, words in life.stderr) == (code, True), life.stderr


def test_what_retention_has_removed_is_not_passed_over(ran, tmp_path, forks):
    """Although the daemon itself is told to pass over gaps: another state would bear the position's name."""
    config, state, _ = ran
    gone = tmp_path / "samples.sqlite"
    shutil.copy(state.parent / gone.name, gone)
    sink = connectors.open_sink("log", {"path": str(gone), "max_records": 20})
    sink.write([Message(samples(1)[0])])
    sink.close()
    life = forks.run("replay", config, "--until", f"samples[0]@{RECORDS - 1}", "--set", f"source.path={gone}")
    assert life.code == 3, life.stderr
    assert f"removed {RECORDS + 1 - 20 - STOPS[1]} records unread" in life.stderr


def many(seed):
    """Two partitions, polled by chance: which one comes next is known to the journal alone."""
    draw = random.Random(seed)
    values = {name: stream(60, seed=i) for i, name in enumerate(("a[0]", "b[0]"))}
    return MemorySource(values, poll_size=lambda: draw.randint(1, 6), order=draw.choice)


def past(folder, state_dir, partition, position, *, source=None, decoder=None):
    """The digest that is rebuilt, from a source that gives the partitions in another order."""
    loop = loop_on(folder, checkpoint_due=Due(every_s=1e9, clock=lambda: 0.0))
    try:
        repetition.begin(loop, state_dir, partition, position)
        positions = dict(loop.admission.positions)
        source, decoder = source or many(99), decoder or PairDecoder()
        repetition.follow(loop, Prefetch(lambda: source, decoder, loop.intake, shape=(1,), positions=positions))
        return loop.checkpoint().state_digest
    finally:
        loop.writer.close()
        loop.journal.close()


@pytest.fixture
def lived(tmp_path):
    """A run over two partitions in three lives, and after each turn: the place that was reached, and the digest there."""
    places = []
    for seed in (1, 2, 3):
        with started(tmp_path, many(seed), every_records=25, seed=seed) as loop:
            while len(places) < 18 * seed and not loop.intake.drained:
                before = dict(loop.admission.positions)
                loop.turn(1.0)
                moved = [(name, at) for name, at in loop.admission.positions.items() if at != before.get(name, 0)]
                places += [(*one, loop.checkpoint().state_digest) for one in moved]
    return tmp_path, places


def test_of_several_partitions_the_journal_tells_the_order(lived, tmp_path):
    state_dir, places = lived
    assert {name for name, _, _ in places} == {"a[0]", "b[0]"}
    for i, (partition, position, digest) in enumerate(places):
        assert past(tmp_path / f"past-{i}", state_dir, partition, position) == digest, (partition, position)


def test_what_had_waited_too_long_by_the_clock_expires_where_it_did(tmp_path):
    """The clock of a repetition stands still: the journal alone tells what expired, and when."""
    values = late.stream(120, seed=3, ids=20)
    clock = itertools.count(0, 400)
    pending = Pending(Settings(expire_s=6.0), clock_ms=lambda: next(clock))
    places = []
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 5), decoder=LateDecoder(), pending=pending) as loop:
        while not loop.intake.drained:
            if loop.turn(1.0).read:
                places.append((loop.admission.positions["a[0]"], loop.checkpoint().state_digest))
        assert loop.pending.expiries["time"] > 10
    for i, (position, digest) in enumerate(places):
        reads = MemorySource({"a[0]": values})
        assert past(tmp_path / f"past-{i}", tmp_path, "a[0]", position, source=reads, decoder=LateDecoder()) == digest, position


def test_what_no_decision_reaches_is_refused(lived, tmp_path):
    state_dir, _ = lived
    with pytest.raises(
        ConfigError, match=r"the journal ends before a\[0\]@1000: which partition comes next is not decided yet"
    ):
        past(tmp_path / "past", state_dir, "a[0]", 1000)


def test_a_source_that_has_lost_its_end_is_not_waited_for(tmp_path, monkeypatch):
    """Behind the last record, where no record can come: the marker of a transaction, or a gap."""
    values = stream(20)
    with started(tmp_path, MemorySource({"a[0]": values})) as loop:
        drain(loop)
    shorter = MemorySource({"a[0]": values[:10]}, endless=True)
    monkeypatch.setattr(shorter, "ends", lambda: {"a[0]": 20})
    monkeypatch.setattr(repetition, "SILENCE_S", 0.0)
    loop = loop_on(tmp_path / "past", checkpoint_due=Due(every_s=1e9, clock=lambda: 0.0))
    repetition.begin(loop, tmp_path, "a[0]", 15)
    reading = Prefetch(lambda: shorter, PairDecoder(), loop.intake, shape=(1,), positions=dict(loop.admission.positions))
    with pytest.raises(SourceError, match=r"the source gives no record before a\[0\]@15 any more"):
        repetition.follow(loop, reading)
    loop.writer.close()
    loop.journal.close()
