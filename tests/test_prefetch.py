"""Reading ahead: bounded, in journal order, through faults of the upstream."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.testbed.fakes import MemorySource, PairDecoder, lost
from streamlearn.errors import PositionLostError, SourceError, StreamlearnError
from streamlearn.journal import Journal
from streamlearn.prefetch import Intake, Prefetch, Retries, decoded
from streamlearn.records import Record


def pairs(n, first=0):
    return [b"[%d, 0]" % i for i in range(first, first + n)]


@contextlib.contextmanager
def reading(source, *, positions=None, max_records=10_000, max_bytes=1 << 20, **more):
    intake = Intake(max_records=max_records, max_bytes=max_bytes)
    prefetch = Prefetch(lambda: source, PairDecoder(), intake, shape=(1,), positions=positions or {}, **more)
    prefetch.start()
    try:
        yield prefetch
    finally:
        prefetch.stop(5.0)


def taken(intake, journal, *, max_records=7):
    """Places of all records until the source is drained."""
    places = []
    while not intake.drained:
        run = intake.take(journal, max_records, 1.0)
        places += [] if run is None else [record.place for record in run.records]
    return places


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(Journal(tmp_path / "journal")) as made:
        made.resume("0001-00000000")
        yield made


def test_every_record_comes_once_and_in_order(journal):
    with reading(MemorySource({"a[0]": pairs(50)}, poll_size=lambda: 9)) as prefetch:
        assert taken(prefetch.intake, journal) == [f"a[0]@{i}" for i in range(50)]


def test_reading_begins_at_the_given_positions(journal):
    with reading(MemorySource({"a[0]": pairs(10)}), positions={"a[0]": 7}) as prefetch:
        assert taken(prefetch.intake, journal) == ["a[0]@7", "a[0]@8", "a[0]@9"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_a_second_run_takes_partitions_in_the_journaled_order(tmp_path_factory, seed):
    """Whatever the poll sizes and the order of arrival of the second run, it takes what the first one took, in that order."""
    folder = tmp_path_factory.mktemp("journal")
    partitions = {f"t[{i}]": pairs(30) for i in range(3)}

    def run(draw):
        source = MemorySource(partitions, poll_size=lambda: draw.randint(1, 9), order=draw.choice)
        with contextlib.closing(Journal(folder)) as journal, reading(source) as prefetch:
            journal.resume("0001-00000000")
            return taken(prefetch.intake, journal, max_records=draw.randint(1, 12))

    first = run(random.Random(seed))
    assert sorted(first) == sorted(f"t[{i}]@{n}" for i in range(3) for n in range(30))
    assert run(random.Random(seed + 1)) == first


def test_a_scripted_order_does_not_stall_when_another_partition_is_at_its_bound(journal, tmp_path):
    """`b` fills its share of the bound first; the script wants all of `a` before it."""
    journal.write("order", partition="a[0]", until=40)
    journal.write("order", partition="b[0]", until=40)
    source = MemorySource({"a[0]": pairs(40), "b[0]": pairs(40)}, poll_size=lambda: 4, order=lambda names: names[-1])
    again = Journal(journal.folder)
    again.resume("0001-00000000")
    with contextlib.closing(again), reading(source, max_records=8) as prefetch:
        places = taken(prefetch.intake, again)
    assert places == [f"a[0]@{i}" for i in range(40)] + [f"b[0]@{i}" for i in range(40)]


@pytest.mark.parametrize("bounds", [{"max_records": 20}, {"max_bytes": 20 * 11}])
def test_what_is_read_ahead_stays_within_its_bounds_and_one_poll(journal, bounds):
    source = MemorySource({"a[0]": pairs(300, first=100)}, poll_size=lambda: 5)
    with reading(source, **bounds) as prefetch:
        most = 0
        while not prefetch.intake.drained:
            prefetch.intake.wait_for_room(0.005)
            most = max(most, prefetch.intake.sizes()[0])
            prefetch.intake.take(journal, 5, 0.01)
    assert 10 <= most <= 20 + 5


def test_a_lost_upstream_is_retried_without_gap_or_repeat(journal):
    source = MemorySource({"a[0]": pairs(30)}, poll_size=lambda: 5, faults={10: [lost()], 20: [lost(), lost()]})
    with reading(source) as prefetch:
        assert taken(prefetch.intake, journal) == [f"a[0]@{i}" for i in range(30)]
        assert prefetch.upstream.errors == 3


def test_a_source_lost_for_too_long_ends_the_run_after_what_was_read(journal):
    source = MemorySource({"a[0]": pairs(30)}, poll_size=lambda: 5, faults={10: [lost() for _ in range(99)]})
    with reading(source, give_up_s=0.05) as prefetch:
        places = []
        with pytest.raises(SourceError, match="upstream is away"):
            while True:
                run = prefetch.intake.take(journal, 5, 1.0)
                places += [] if run is None else [record.position for record in run.records]
    assert places == list(range(10))


@pytest.mark.parametrize(
    ("fault", "kind"), [(PositionLostError("a[0] begins at 9"), PositionLostError), (ZeroDivisionError(), StreamlearnError)]
)
def test_faults_that_no_retry_mends_end_the_run_at_once(journal, fault, kind):
    with (
        reading(MemorySource({"a[0]": pairs(5)}, faults={0: [fault]})) as prefetch,
        pytest.raises(kind),
    ):
        for _ in range(50):
            prefetch.intake.take(journal, 5, 0.1)


class Uncommitted(MemorySource):
    """Nobody can be told its positions."""

    def commit(self, positions):
        raise SourceError("no coordinator")


def test_a_commit_that_fails_is_counted_and_reading_goes_on(journal):
    with reading(Uncommitted({"a[0]": pairs(3)})) as prefetch:
        prefetch.durable({"a[0]": 1})
        assert len(taken(prefetch.intake, journal)) == 3
    assert prefetch.upstream.commit_errors == 1
    assert (prefetch.upstream.ok, prefetch.upstream.errors) == (True, 0)


def test_durable_positions_are_committed_by_the_prefetch_thread(journal):
    source = MemorySource({"a[0]": pairs(5)}, endless=True)
    with reading(source) as prefetch:
        prefetch.durable({"a[0]": 3})
    assert source.committed == [{"a[0]": 3}]
    assert source.closed.is_set()


def test_decoding_keeps_refused_records_beside_their_neighbours():
    records = [Record("a[0]", i, value) for i, value in enumerate([b"[1, 0]", b"nonsense", None, b"[4, 1]"])]
    (run,) = decoded(records, PairDecoder(), (1,))
    assert run.x[:, 0].tolist() == [1, 0, 0, 4]
    assert [isinstance(sample, Exception) for sample in run.samples] == [False, True, True, False]


def test_pauses_grow_to_a_bound_and_end_when_it_is_time_to_give_up():
    now = [0.0]
    retries = Retries(100.0, lambda: now[0])
    pauses = []
    while (pause := retries.pause_s()) is not None:
        pauses.append(pause)
        now[0] += pause
    assert 0.07 <= pauses[0] <= 0.13
    assert 3.7 <= max(pauses) <= 6.3
    assert 100 <= now[0] < 107
