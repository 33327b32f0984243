"""One metric: name, label, unit, meaning, and what it is read from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from streamlearn.reading import OTHER, Seen, Values

PREFIX = "streamlearn_"
MAX_PARTITIONS, MAX_MEMBERS, MAX_ERAS, MAX_COVERAGES = 100, 20, 64, 8
MILLISECONDS_UP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. `read` is missing where it is observed as it happens."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    help: str
    read: Callable[[Seen], Values] | None = None
    label: str = ""
    values: tuple[str, ...] = ()  # known beforehand: these series exist from the first scrape
    limit: int = 0  # most values of a label whose values come from outside; the rest is summed up as `other`, or left out
    buckets: tuple[float, ...] = ()

    @property
    def sums_up(self) -> bool:
        """Whether values past `limit` are told as one, `other`: their sum means something. Else they are left out."""
        return self.kind == "counter" or self.unit in ("records", "rows", "bytes")

    @property
    def most_series(self) -> int:
        """No page has more of it."""
        if self.kind == "histogram":
            return len(self.buckets) + 3  # the last bucket, sum and count
        own = len(self.values) + self.limit
        return max(1, own + (self.sums_up and OTHER not in self.values))  # what nobody knew beforehand is `other`

    @property
    def full_name(self) -> str:
        """With the prefix of the program."""
        return PREFIX + self.name
