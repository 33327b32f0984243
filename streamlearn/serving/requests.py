"""Questions that come as records, from a topic of their own: answered from snapshots, each at least once.

Runs in a process that the daemon watches, as the followers do, or, where there are none, in a thread. Its positions are its
own, and no part of the model: they are saved once the replies up to them are durable. A crash in between answers some
questions twice; the header `streamlearn-request` tells such replies from others.
"""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import structlog

from streamlearn import logs
from streamlearn.disk import replace_file
from streamlearn.errors import ConfigError, PositionLostError, SinkError, SourceError, StreamlearnError
from streamlearn.protocols import Sink, Source
from streamlearn.records import Positions
from streamlearn.serving.counts import counts_file, write_counts
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.follower import end_with_parent
from streamlearn.serving.replies import replied
from streamlearn.serving.service import Service, decode
from streamlearn.snapshot import Current, FollowedFile

POLL_S = 0.1
FLUSH_S = 30.0
FIRST_DELAY_S, LAST_DELAY_S = 0.2, 10.0  # before it connects again
TELL_EVERY_S = 1.0

log = structlog.get_logger()


class Saved(NamedTuple):
    """Where the next question is read, and of which streams: a topic may be deleted and made anew under its name."""

    positions: Positions = MappingProxyType({})
    identities: Mapping[str, str] = MappingProxyType({})

    def renewed(self, found: Mapping[str, str]) -> dict[str, int]:
        """The beginning of each partition of a stream that is not the one it was."""
        streams = {name for name, identity in self.identities.items() if found.get(name, identity) != identity}
        return {partition: 0 for partition in self.positions if partition.rpartition("[")[0] in streams}


class Places:
    """What is saved, in a small file. A power cut may take the last of it back: those questions are answered again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Saved:
        """Errors: SourceError for a damaged file."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
            return Saved(found.positions, found.identities)
        except FileNotFoundError:
            return Saved()
        except (OSError, msgspec.MsgspecError) as error:
            raise SourceError(f"{self._path} cannot be read ({error}): mend it, or delete it to begin anew") from error

    def write(self, saved: Saved) -> None:
        """Whole or not at all. Errors: SinkError."""
        content = msgspec.json.encode(_File(dict(saved.positions), dict(saved.identities)))
        try:
            replace_file(self._path, content, after_power_cut="old or new")
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {error}") from error


class _File(msgspec.Struct):
    positions: dict[str, int]
    identities: dict[str, str]


class Requests:
    """Polls, answers, writes, saves, in this order, in the thread that calls `run`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        open_source: Callable[[], Source],
        open_sink: Callable[[], Sink],
        places: Places,
        most: int,
        refresh: Callable[[], object] = lambda: None,
        tell: Callable[[int | None], object] = lambda _: None,
    ) -> None:
        """`most` questions are answered between two savings of the positions. Between them `refresh` looks for a newer
        snapshot, and `tell` is told how many questions wait; None while the upstream is lost."""
        self._endpoint, self._open_source, self._open_sink = endpoint, open_source, open_sink
        self._places, self._most, self._refresh, self._tell = places, most, refresh, tell

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, whatever becomes of the upstream. Questions wait in it until there is a model that can answer."""
        delay_s = FIRST_DELAY_S
        while not stop.is_set():
            try:
                if self._has_model(stop):
                    self._answer(stop)
            except (SourceError, SinkError) as error:
                log.warning("requests.lost", error=str(error), next_step=f"connecting again in {delay_s:g} s")
                self._refresh()
                self._tell(None)
                stop.wait(delay_s)
                delay_s = min(2 * delay_s, LAST_DELAY_S)

    def _has_model(self, stop: threading.Event) -> bool:
        while not stop.is_set():
            self._refresh()
            served = self._endpoint.served()
            if served is not None and served.learned:
                return True
            stop.wait(POLL_S)
        return False

    def _answer(self, stop: threading.Event) -> None:
        source, sink = self._sought(), self._open_sink()
        try:
            log.info("requests.answering", positions=dict(source.positions()))
            while not stop.is_set():
                self._turn(source, sink)
        finally:
            source.close()
            with suppress(SinkError):  # what was not confirmed is answered again
                sink.close()

    def _turn(self, source: Source, sink: Sink) -> None:
        records = source.poll(self._most, POLL_S)
        self._refresh()
        for gap in source.gaps():
            log.error("requests.gone", partition=gap.partition, questions=gap.next - gap.first, reason="retention took them")
        if records:
            sink.write([replied(record, self._endpoint) for record in records])
            sink.flush(FLUSH_S)
            self._places.write(Saved(source.positions(), source.identities()))
            source.commit(source.positions())
        ends, positions = source.ends(), source.positions()
        self._tell(sum(max(0, end - positions[name]) for name, end in ends.items()))

    def _sought(self) -> Source:
        """Where it was; the first time, where that begins is saved before anything is read."""
        saved, source = self._places.read(), self._open_source()
        try:
            source.seek(saved.positions)
            again = saved.renewed(source.identities())
        except PositionLostError as error:
            log.warning("requests.position_lost", error=str(error), next_step="answering from the beginning")
            again = dict.fromkeys(saved.positions, 0)
        if again:
            source.close()
            source = self._open_source()
            source.seek({**saved.positions, **again})
        self._places.write(Saved(source.positions(), source.identities()))
        return source


class Telling:
    """Writes what was counted, and how many questions wait, about once a second: `counts` says what the file holds."""

    def __init__(self, endpoint: Endpoint, current: Current, path: Path) -> None:
        self._endpoint, self._current, self._path, self._next_s = endpoint, current, path, 0.0

    def __call__(self, lag: int | None) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + TELL_EVERY_S
        self._endpoint.served()  # also while nobody asks
        counts = self._endpoint.told() | {"questions_waiting": lag}
        counts["failed_loads"] += self._current.failed_loads
        write_counts(self._path, counts)


def requests(service: Service, current: Current, *, tell: Path, refresh: Callable[[], object] = lambda: None) -> Requests:
    """As the service says. What is counted goes to the file `tell` about once a second. Errors: ConfigError."""
    told = service.requests
    if told is None:
        raise ConfigError("serve.kafka is not given: expected where questions come from")
    endpoint = service.endpoint(current)
    return Requests(
        endpoint,
        open_source=told.source,
        open_sink=told.sink,
        places=Places(Path(told.positions)),
        most=told.most,
        refresh=refresh,
        tell=Telling(endpoint, current, tell),
    )


class InThread:
    """The same in a thread of the learner's process, where servers are too."""

    def __init__(self, service: Service, current: Current, *, tell: Path) -> None:
        """Errors: ConfigError."""
        self._requests, self._stop = requests(service, current, tell=tell), threading.Event()
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def withdraw(self) -> None:
        """Take no more."""
        self._stop.set()

    def stop(self, timeout_s: float) -> None:
        """Withdraw, and return when what was taken is answered, or at the deadline. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._requests.run(self._stop)
        except Exception:
            log.exception("requests.failed")


def main() -> int:
    """The daemon's way in, as `follower.main`."""
    parser = argparse.ArgumentParser(prog="python -m streamlearn.serving.requests", description="Started by streamlearn run.")
    parser.add_argument("--follow", type=Path, required=True, help="folder of the snapshots")
    parser.add_argument("--index", type=int, required=True, help="its number among the followers")
    arguments = parser.parse_args()
    logs.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - held until the process ends
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        service = decode(told.readline())
        end_with_parent(told)
        followed = FollowedFile(arguments.follow)
        requests(service, followed, tell=counts_file(arguments.follow, arguments.index), refresh=followed.poll).run(stop)
    except StreamlearnError as error:
        log.error("requests.ended", error=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
