"""The order of starting and stopping, over fakes: what is withdrawn, written and let go when, whatever goes wrong."""

import os
import signal
import threading

import pytest

from benchmarks.testbed.fakes import MemorySource, PairDecoder
from benchmarks.testbed.loops import loop_on
from streamlearn.daemon import Daemon, Deadlines
from streamlearn.due import Due
from streamlearn.errors import CheckpointError, ConfigError, SourceError
from streamlearn.ownership import Ownership
from streamlearn.prefetch import Prefetch
from tests.test_prequential import stream


class Tape:
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: str) -> None:
        self.events.append(event)


class Service:
    """Says what is asked of it; `fault` is raised by `start`."""

    def __init__(self, name, tape, *, fault=None):
        self.name, self.tape, self.fault = name, tape, fault

    def start(self):
        if self.fault:
            raise self.fault
        self.tape(f"{self.name} started")

    def withdraw(self):
        self.tape(f"{self.name} withdrawn")

    def stop(self, timeout_s):
        self.tape(f"{self.name} stopped within {timeout_s:g}")


class Watch:
    """Writes phases on the tape, and calls `at` after so many turns."""

    def __init__(self, tape, turns=lambda _: None):
        self.tape, self.turns, self.n = tape, turns, 0

    def saw(self, turn):
        self.n += 1
        self.turns(self.n)

    def report(self, phase):
        if self.tape.events[-1:] != [phase]:
            self.tape(phase)


class Source(MemorySource):
    """Says when it is closed, and what was committed."""

    def __init__(self, *args, tape, **more):
        super().__init__(*args, **more)
        self.tape = tape

    def close(self):
        if not self.closed.is_set():
            self.tape("source closed")
        super().close()


def daemon_on(folder, source, tape, *, services=(), turns=lambda _: None, every_records=1000, **more):
    loop = loop_on(folder, checkpoint_due=Due(every_s=1e9, every_count=every_records, clock=lambda: 0.0))
    loop.writer.on_durable.append(lambda written, _: tape(f"checkpoint {written.number}"))
    return Daemon(
        state_dir=folder,
        loop=loop,
        make_prefetch=lambda at: Prefetch(lambda: source, PairDecoder(), loop.intake, shape=(1,), positions=at, give_up_s=0.0),
        make_watch=lambda _: Watch(tape, turns),
        services=services,
        close=lambda: tape("let go"),
        **more,
    )


def test_at_the_end_of_the_source_everything_ends_in_the_order_that_loses_nothing(tmp_path):
    tape = Tape()
    source = Source({"a[0]": stream(31)}, tape=tape)
    services = [Service("page", tape), Service("server", tape)]
    daemon_on(tmp_path, source, tape, services=services, deadlines=Deadlines(services_s=3.0, drain_s=4.0)).run()
    events = [event for event in tape.events if event != "checkpoint 0"]
    assert events == [
        "starting",
        "page started",
        "server started",
        "running",
        "page withdrawn",
        "server withdrawn",
        "checkpoint 10",
        "stopping",
        "server stopped within 7",
        "page stopped within 7",
        "source closed",
        "stopped",
        "let go",
    ]
    Ownership(tmp_path).release()


def test_a_stop_from_another_thread_ends_it_with_a_checkpoint_of_all_that_was_taken(tmp_path):
    tape = Tape()
    source = Source({"a[0]": stream(40)}, tape=tape, endless=True)
    daemon = daemon_on(tmp_path, source, tape)
    thread = threading.Timer(0.0, lambda: None)

    def after(turn):
        nonlocal thread
        if daemon.loop.read == 40 and not daemon.stopping:
            thread = threading.Thread(target=daemon.stop)
            thread.start()
            thread.join()

    daemon._make_watch = lambda _: Watch(tape, after)
    daemon.run()
    assert daemon.loop.writer.last.positions == {"a[0]": 40}
    assert daemon.loop.writer.last.number == 13


def test_a_service_that_cannot_start_stops_those_that_did_and_reads_nothing(tmp_path):
    tape = Tape()
    source = Source({"a[0]": stream(9)}, tape=tape)
    services = [Service("page", tape), Service("server", tape, fault=ConfigError("port in use")), Service("late", tape)]
    with pytest.raises(ConfigError, match="port in use"):
        daemon_on(tmp_path, source, tape, services=services).run()
    assert tape.events == ["starting", "page started", "stopping", "page stopped within 8", "stopped", "let go"]
    assert source.next == {"a[0]": 0}
    Ownership(tmp_path).release()


def test_a_source_that_is_lost_ends_it_with_its_error_and_without_leaving_anything_open(tmp_path):
    tape = Tape()
    faults = {12: [SourceError("gone for good") for _ in range(3)]}
    source = Source({"a[0]": stream(30)}, tape=tape, faults=faults, poll_size=lambda: 6)
    with pytest.raises(SourceError, match="gone for good"):
        daemon_on(tmp_path, source, tape, services=[Service("server", tape)], every_records=6).run()
    last = [event for event in tape.events if not event.startswith("checkpoint")][-5:]  # those are written in their own time
    assert last == ["stopping", "server stopped within 8", "source closed", "stopped", "let go"]
    Ownership(tmp_path).release()


def test_a_last_checkpoint_that_cannot_be_written_is_an_error_and_no_clean_end(tmp_path):
    tape = Tape()
    daemon = daemon_on(tmp_path, Source({"a[0]": stream(9)}, tape=tape), tape)
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match="the last checkpoint could not be written: the one before it stands"):
        daemon.run()
    assert tape.events[-2:] == ["stopped", "let go"]


def test_the_directory_is_locked_from_before_the_checkpoint_is_read_until_all_is_closed(tmp_path):
    tape = Tape()
    owner = Ownership(tmp_path)
    daemon = daemon_on(tmp_path, Source({"a[0]": stream(9)}, tape=tape), tape)
    with pytest.raises(CheckpointError, match=f"is locked by process {os.getpid()}"):
        daemon.run()
    assert tape.events == []
    owner.release()


def test_what_is_durable_is_told_to_the_upstream_and_the_journal_is_cut_behind_it(tmp_path):
    tape = Tape()
    source = Source({"a[0]": stream(90)}, tape=tape, poll_size=lambda: 9)
    daemon = daemon_on(tmp_path, source, tape, every_records=9)
    daemon.loop.writer.store.keep = 2
    daemon.run()
    assert source.committed[-1] == {"a[0]": 90} == daemon.loop.writer.last.positions
    kept = daemon.loop.writer.store.names()
    assert len(kept) == 2
    assert sorted(path.stem for path in (tmp_path / "journal").iterdir())[0] == kept[0]


def test_signals_are_taken_and_the_first_one_drains(tmp_path):
    tape = Tape()
    daemon = daemon_on(tmp_path, Source({"a[0]": stream(9)}, tape=tape, endless=True), tape)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        daemon.take_signals()
        daemon._make_watch = lambda _: Watch(tape, lambda _: daemon.stopping or os.kill(os.getpid(), signal.SIGTERM))
        daemon.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "stopped" in tape.events


def test_the_next_daemon_goes_on_where_the_last_one_stopped(tmp_path):
    values = stream(50)
    for held in (values[:20], values):
        tape = Tape()
        daemon = daemon_on(tmp_path, Source({"a[0]": held}, tape=tape), tape)
        daemon.run()
    straight = daemon_on(tmp_path / "straight", Source({"a[0]": values}, tape=Tape()), Tape())
    straight.run()
    assert daemon.loop.writer.last.state_digest == straight.loop.writer.last.state_digest
    assert daemon.loop.read == 30
