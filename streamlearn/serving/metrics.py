"""The metrics page of a server that no daemon started: what it did, and how old what it answers from is.

The server's loop shows its counts about once a second; scrapes are answered in threads of their own.
"""

import math
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from streamlearn import __version__
from streamlearn.follower_files import alone
from streamlearn.reading import NOT_YET, Reading, Seen
from streamlearn.records import Json
from streamlearn.scrape import Listening, families, listen
from streamlearn.serving.counts import Counts
from streamlearn.telemetry import SERVERS

BUILD = {"build_info": {"version": __version__, "python": platform.python_version()}}


class ServerPage(Collector):
    """`published_s` tells, at each scrape, when the newest snapshot was published, be it one that the server refused."""

    def __init__(self, published_s: Callable[[], float]) -> None:
        self._published_s = published_s
        self._told: Mapping[str, Json] = Counts().values(age_s=math.inf)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def show(self, told: Mapping[str, Json]) -> None:
        """From now on, scrapes tell this: counts as `counts` describes them."""
        self._told = told

    def serve(self, host: str, port: int) -> Listening:
        """Answer scrapes until `stop`. Errors: ConfigError when the port is taken."""
        return listen(self.registry, host, port, path="serve.metrics_port")

    def collect(self) -> Iterable[Any]:
        """Called by the registry, in the thread of a scrape."""
        return families(SERVERS, Seen(Reading(snapshot_time_s=self._published_s()), alone(self._told), NOT_YET), BUILD)
