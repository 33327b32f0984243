"""What follower processes count, each in a small file that it renews (`serving/counts.py` says what it holds), added up."""

import json
import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Those of the followers, so that the histogram has its series before the first of them has written."""


class Servers(NamedTuple):
    """What all followers did since this process began, and what they serve now. NaN where none has told."""

    requests: Mapping[str, float]  # by status code
    rows: float
    samples: float
    feedback: float
    lost_answers: float
    bounds: tuple[float, ...]  # upper ends of the buckets, in seconds
    counts: tuple[float, ...]  # one for each bound, and one for what took longer
    seconds: float
    failed_loads: float
    number: float  # the least number that is served
    time_s: float  # when the oldest snapshot that is served was published, since the epoch
    questions: float  # that wait in topics; NaN where none are read
    silence_s: float  # the longest that a follower has not heard of the learner


class FollowerFiles:
    """`follower-*.json` in one folder, read anew by each scrape. A follower that begins again takes nothing back."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._before: dict[str, dict[str, float]] = {}
        self._totals: Counter[str] = Counter()
        self._bounds: tuple[float, ...] = BUCKETS
        self._lock = threading.Lock()

    def read(self) -> Servers:
        """The totals. A file that is not whole, or not there any more, counts as it did before."""
        with self._lock:
            paths = sorted(self._folder.glob("follower-*.json")) if self._folder else []
            told = [content for path in paths if (content := self._take(path))]
            return _servers(self._totals, told, self._bounds)

    def _take(self, path: Path) -> Mapping[str, Any] | None:
        try:
            told: Mapping[str, Any] = json.loads(path.read_bytes())
            counted = _counted(told)
            self._bounds = tuple(map(float, told["seconds"]["buckets"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        before = self._before.get(path.name, {})
        if any(counted.get(name, 0.0) < value for name, value in before.items()):
            before = {}  # the follower began again
        for name, value in counted.items():
            self._totals[name] += value - before.get(name, 0.0)  # type: ignore[assignment]  # typeshed: counts are int
        self._before[path.name] = counted
        return told


def alone(told: Mapping[str, Any]) -> Servers:
    """What one server did, from what it would write into its file."""
    return _servers(Counter(_counted(told)), [told], tuple(told["seconds"]["buckets"]))


def _servers(total: Mapping[str, float], told: Sequence[Mapping[str, Any]], bounds: tuple[float, ...]) -> Servers:
    return Servers(
        requests={name.removeprefix("code/"): n for name, n in total.items() if name.startswith("code/")},
        rows=total["rows"],
        samples=total["samples"],
        feedback=total["feedback"],
        lost_answers=total["lost_answers"],
        bounds=bounds,
        counts=tuple(total[f"bucket/{i}"] for i in range(len(bounds) + 1)),
        seconds=total["seconds"],
        failed_loads=total["failed_loads"],
        number=min(_given(told, "served_number"), default=math.nan),
        time_s=min(_given(told, "served_time_seconds"), default=math.nan),
        questions=max(_given(told, "questions_waiting"), default=math.nan),
        silence_s=max(_given(told, "age_seconds"), default=math.nan),
    )


def _counted(told: Mapping[str, Any]) -> dict[str, float]:
    """All that only grows while a follower lives."""
    codes = {f"code/{code}": float(count) for code, count in told["requests"].items()}
    buckets = {f"bucket/{i}": float(count) for i, count in enumerate(told["seconds"]["counts"])}
    told = {"feedback": 0, "lost_answers": 0, **told}  # a follower of an earlier build does not tell them
    names = ("rows", "samples", "feedback", "lost_answers", "failed_loads")
    return codes | buckets | {"seconds": float(told["seconds"]["sum"])} | {name: float(told[name]) for name in names}


def _given(told: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    return [float(one[name]) for one in told if one.get(name) is not None]
