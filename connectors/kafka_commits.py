"""Positions told to a consumer group, for lag tools: by a thread and a connection of their own.

So a group coordinator that is away, slow or refuses cannot hold up reading.
"""

import threading
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError

from connectors.kafka_client import reason
from streamlearn.errors import SourceError, StreamlearnError


class Commits:
    """The newest positions win; what went wrong is told with the next ones."""

    def __init__(self, open_client: Callable[[], Any], *, where: str, timeout_s: float) -> None:
        self._open_client, self._where, self._timeout_s = open_client, where, timeout_s
        self._newest: Any = None
        self._failure: SourceError | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-commits", daemon=True)
        self._thread.start()

    def tell(self, offsets: Any) -> None:
        """Returns at once. Errors: SourceError for positions that were told before; these here are on their way even so."""
        failure, self._failure = self._failure, None
        self._newest = offsets
        self._wake.set()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """The newest positions are committed, or given up after `timeout_s`."""
        self._closing.set()
        self._wake.set()
        self._thread.join(2 * self._timeout_s)

    def _run(self) -> None:
        client: Any = None
        while not self._closing.is_set() or self._newest is not None:
            self._wake.wait()
            self._wake.clear()
            offsets, self._newest = self._newest, None
            if offsets is None:
                continue
            try:
                client = client or self._open_client()
                client.commit(offsets, timeout_ms=int(1000 * self._timeout_s))
            except KafkaError as error:
                self._failure = SourceError(f"{self._where}: positions were not committed for lag tools: {reason(error)}")
                _closed(client)
                client = None  # a new one reads passwords and keys as they are then
            except StreamlearnError as error:
                self._failure = SourceError(f"positions were not committed for lag tools: {error}")
        _closed(client)


def _closed(client: Any) -> None:
    if client is not None:
        client.close(autocommit=False, timeout_ms=1000)
