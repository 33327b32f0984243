"""Every source keeps its promises: order, no gap, no repeat, from any position; and none of its calls outlives its time-out."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamlearn.errors import PositionLostError, SourceError
from streamlearn.protocols import Source
from tests.contracts.upstreams import (
    Upstream,
    by_partition,
    kafka_upstream,
    lines_upstream,
    log_upstream,
    messages_upstream,
    npz_upstream,
    read,
    stdin_upstream,
    synthetic_upstream,
)

MADE: dict[str, Callable[[Path], Upstream]] = {
    "log": log_upstream,
    "json lines": lambda folder: lines_upstream(folder / "a.jsonl", header=False, follow=False),
    "json lines, followed": lambda folder: lines_upstream(folder / "a.jsonl", header=False, follow=True),
    "csv with a header": lambda folder: lines_upstream(folder / "a.csv", header=True, follow=False),
    "csv with a header, followed": lambda folder: lines_upstream(folder / "a.csv", header=True, follow=True),
    "messages": messages_upstream,
    "npz": npz_upstream,
    "synthetic": lambda _: synthetic_upstream(),
    "stdin": lambda _: stdin_upstream(),
}
Opened = Callable[..., Source]


@pytest.fixture(params=[*MADE, "kafka of 1", "kafka of 3"])
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Upstream]:
    name = request.param
    if name in MADE:
        made = MADE[name](tmp_path)
    else:
        partitions = int(name[-1])
        topic = request.getfixturevalue("kafka_topic")(partitions)
        made = kafka_upstream(request.getfixturevalue("kafka"), topic, partitions)
    yield made
    made.done()


@pytest.fixture
def opened(upstream: Upstream) -> Iterator[Opened]:
    """Opens sources at given positions, and closes them at the end."""
    sources: list[Source] = []

    def make(positions: dict[str, int] | None = None, **settings: object) -> Source:
        sources.append(upstream.open(**settings))
        sources[-1].seek(positions or {})
        return sources[-1]

    yield make
    for source in sources:
        source.close()


def test_reads_everything_in_order_and_as_it_was_written(upstream: Upstream, opened: Opened) -> None:
    held = upstream.hold(300)
    assert by_partition(read(opened(), 300)) == held


def test_positions_are_one_past_the_last_record_returned(upstream: Upstream, opened: Opened) -> None:
    upstream.hold(60)
    source, seen = opened(), dict.fromkeys(upstream.held, 0)
    assert source.positions() == seen
    for _ in range(60):
        for record in read(source, 1, max_records=1):
            seen[record.partition] = record.position + 1
        assert source.positions() == seen


@pytest.mark.parametrize("seed", range(5))
def test_goes_on_from_any_positions_without_gap_or_repeat(upstream: Upstream, opened: Opened, seed: int) -> None:
    if not upstream.seekable:
        pytest.skip("cannot be read from another place")
    held = upstream.hold(150)
    draw = random.Random(seed)
    positions = {partition: draw.randint(0, len(records)) for partition, records in held.items()}
    wanted = {p: records[positions[p] :] for p, records in held.items() if positions[p] < len(records)}
    got = read(opened(positions), sum(map(len, wanted.values())), max_records=draw.randint(1, 50))
    assert by_partition(got) == wanted


def test_a_source_opened_again_continues_where_the_last_one_stopped(upstream: Upstream, opened: Opened) -> None:
    if not upstream.seekable:
        pytest.skip("cannot be read again")
    held = upstream.hold(150)
    draw, positions, got = random.Random(0), None, []
    while len(got) < 150:
        source = opened(positions)
        read_now = read(source, min(draw.randint(1, 60), 150 - len(got)), max_records=draw.randint(1, 20))
        got, positions = got + read_now, dict(source.positions())
        source.close()
        assert read_now
    assert by_partition(got) == held


@pytest.mark.parametrize("max_records", [1, 2, 17])
def test_a_poll_returns_at_most_max_records(upstream: Upstream, opened: Opened, max_records: int) -> None:
    upstream.hold(60)
    source, n = opened(), 0
    while n < 60:
        got = source.poll(max_records, 5.0)
        assert 0 < len(got) <= max_records
        n += len(got)


def test_an_empty_poll_returns_within_its_time_out_and_spends_no_time_on_the_processor(
    upstream: Upstream, opened: Opened
) -> None:
    upstream.hold(3)
    source = opened()
    read(source, 3)
    began, spent = time.monotonic(), time.process_time()
    assert source.poll(10, 1.0) == []
    assert time.monotonic() - began < 1.5
    assert time.process_time() - spent < 0.2


def test_what_is_added_later_is_found(upstream: Upstream, opened: Opened) -> None:
    if not upstream.follows:
        pytest.skip("ends where the file ended")
    upstream.hold(30)
    source = opened()
    first = read(source, 30)
    held = upstream.hold(30)
    assert by_partition(first + read(source, 30)) == held


def test_a_source_that_skipped_nothing_reports_no_gap(upstream: Upstream, opened: Opened) -> None:
    upstream.hold(20)
    source = opened()
    read(source, 20)
    assert not source.gaps()


def test_paused_partitions_give_nothing_and_lose_nothing(upstream: Upstream, opened: Opened) -> None:
    held = upstream.hold(300)
    source, draw, got = opened(), random.Random(1), []
    for _ in range(40):
        paused = {p for p in held if draw.random() < 0.5}
        now = source.poll(10, 0.05, paused)
        assert not paused & {record.partition for record in now}
        got += now
    assert by_partition(got + read(source, 300 - len(got))) == held


def test_ends_are_one_past_the_newest_record(upstream: Upstream, opened: Opened) -> None:
    held = upstream.hold(60)
    source = opened()
    read(source, 60)
    assert source.ends() == {p: len(records) for p, records in held.items()} == source.positions()


def test_ends_are_known_before_the_first_poll(upstream: Upstream, opened: Opened) -> None:
    if not upstream.knows_ends:
        pytest.skip("knows only what was read")
    held = upstream.hold(60)
    assert opened().ends() == {p: len(records) for p, records in held.items()}


def test_only_a_stream_that_cannot_grow_is_exhausted_at_its_end(upstream: Upstream, opened: Opened) -> None:
    upstream.hold(30)
    source = opened()
    assert not source.exhausted()
    read(source, 30)
    assert source.exhausted() is not upstream.follows


def test_closing_twice_is_allowed(upstream: Upstream, opened: Opened) -> None:
    upstream.hold(3)
    source = opened()
    source.close()
    source.close()


def test_an_unreachable_upstream_is_a_source_error_within_the_time_out(upstream: Upstream) -> None:
    if upstream.unreachable is None:
        pytest.skip("nothing to reach")
    source = upstream.open(**upstream.unreachable)
    began = time.monotonic()
    with pytest.raises(SourceError):
        source.seek({})
    assert time.monotonic() - began < 3.0
    source.close()


def test_positions_of_others_are_left_alone(upstream: Upstream, opened: Opened) -> None:
    held = upstream.hold(30)
    source = opened({"another[0]": 17})
    assert by_partition(read(source, 30)) == held
    assert set(source.positions()) == set(held)


def test_a_position_beyond_the_end_is_lost(upstream: Upstream) -> None:
    if not upstream.bounded:
        pytest.skip("there is no beyond")
    partition = next(iter(upstream.hold(30)))
    source = upstream.open()
    with pytest.raises(PositionLostError, match=r"@31 is saved, but .* ends at"):
        source.seek({partition: 31})
    source.close()


def test_a_commit_harms_nothing(upstream: Upstream, opened: Opened) -> None:
    held = upstream.hold(30)
    source = opened()
    first = read(source, 15)
    source.commit(source.positions())
    assert by_partition(first + read(source, 15)) == held
