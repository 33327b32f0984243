"""What one server did, in plain numbers: the learner's `/metrics` adds up the files of all followers, so one scrape shows all.

`LIVE/follower-<n>.json`, renewed about once a second when something changed:

    {"requests": {"200": 12, "400": 1}, "rows": 40, "samples": 3, "feedback": 2, "lost_answers": 0,
     "seconds": {"buckets": [0.0001, …, 1.0], "counts": [0, …, 2], "sum": 0.9},
     "served_number": 881, "served_time_seconds": 1796032800.25, "failed_loads": 0, "age_seconds": 0.06}

`requests` counts inference requests by status, `seconds` their time in the server: `counts[i]` fell at or below `buckets[i]`
and above the one before; the last count, one more than there are buckets, is of longer ones. `lost_answers` counts rows of
questions with an id whose answers could not be recorded. All begin at 0 when a server starts. `served_number` and
`served_time_seconds`, when that snapshot was published, are null before the first one, `age_seconds` before the learner's first
sign of life. Whoever answers questions from topics adds `questions_waiting`: how many lie there.
"""

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from streamlearn.disk import replace_file
from streamlearn.records import Json

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

log = structlog.get_logger()


def counts_file(folder: Path, index: int) -> Path:
    """Where the follower of that index tells what it did."""
    return folder / f"follower-{index}.json"


def write_counts(path: Path, counts: Mapping[str, Json]) -> None:
    """The counts are in the file; where it cannot be written, the log says so, and the counts before stay."""
    try:
        replace_file(path, msgspec.json.encode(counts))
    except OSError as error:
        log.warning("follower.counts_not_written", path=str(path), error=str(error), next_step="trying again in a second")


@dataclass
class Counts:
    """Written by the server's own thread alone."""

    requests: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    samples: int = 0
    feedback: int = 0  # late labels
    failed_loads: int = 0
    served_number: int | None = None
    served_time_s: float | None = None  # when it was published, since the epoch
    _within: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    _sum: float = 0.0

    def request(self, status: int, seconds: float) -> None:
        """Count one inference request."""
        self.requests[str(status)] += 1
        self._within[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def values(self, *, age_s: float, lost_answers: int = 0) -> dict[str, Json]:
        """As in the file."""
        return {
            "requests": dict(self.requests),
            "rows": self.rows,
            "samples": self.samples,
            "feedback": self.feedback,
            "lost_answers": lost_answers,
            "seconds": {"buckets": list(BUCKETS), "counts": list(self._within), "sum": self._sum},
            "served_number": self.served_number,
            "served_time_seconds": self.served_time_s,
            "failed_loads": self.failed_loads,
            "age_seconds": age_s if math.isfinite(age_s) else None,
        }
