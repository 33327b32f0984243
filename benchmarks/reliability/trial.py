"""A topic, a daemon that reads it and one who asks: what the scenarios of broker faults are made of."""

import time

from benchmarks.reliability.bench import Bench
from benchmarks.reliability.cluster import LONGEST_S, Asker, Cluster, Reader, cluster
from benchmarks.reliability.stream import PATIENCE_S, Upstream, check_surviving, values

RECORDS = 360
HALF = RECORDS // 2
SAME = "the undisturbed run's bytes and answers; no question failed"


class Trial:
    """A topic that is filled in two halves, a daemon on it, and one who asks."""

    def __init__(
        self, bench: Bench, *, host: Cluster | None = None, proxied: bool = False, replicas: int = 1, **source: object
    ) -> None:
        self.bench, self.cluster = bench, host or cluster(bench)
        self.topic = self.cluster.topic(replicas=replicas)
        self.values = values(RECORDS, seed=3)
        keys = self.cluster.source(self.topic, proxied=proxied, **source)
        self.upstream = Upstream(keys, {f"{self.topic}[0]": self.values})
        self.reader = Reader(bench, self.upstream)

    def first_half(self) -> None:
        """Sent, and read by a daemon that answers questions from now on."""
        self.cluster.send(self.topic, self.values[:HALF])
        self.reader.start()
        self.reader.reads(HALF)
        self.asker = Asker(self.reader.port)
        self.cluster.until(lambda: self.asker.answers > 10, "ten answers", PATIENCE_S)

    def outlast(self) -> None:
        """Until the loss was reported three times, and for the longest pause between two tries."""
        self.reader.lost(3)
        time.sleep(LONGEST_S)

    def second_half(self) -> float:
        """Sent; seconds until the daemon read on."""
        self.cluster.send(self.topic, self.values[HALF:])
        return self.reader.reads(HALF + 1)

    def finish(self) -> None:
        """Compared with a run that was not disturbed. Errors: AssertionError."""
        self.reader.reads(RECORDS)
        self.asker.stop()
        self.reader.finish()
        self.undisturbed()

    def undisturbed(self) -> None:
        """Another daemon reads all of it, directly."""
        direct = {**self.upstream.source, "bootstrap_servers": self.cluster.node.bootstrap}
        straight = Reader(self.bench, Upstream(direct, self.upstream.held), "straight", serve={"enabled": False})
        straight.start()
        straight.reads(RECORDS)
        straight.finish()
        check_surviving(self.reader.state, straight.state, self.upstream)
