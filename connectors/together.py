"""Several sources as one: the main one, and what is read beside it. Each partition keeps its name, so names must differ.

What comes from a source of labels is marked as such by a header, so that its values need not say so themselves.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from streamlearn.errors import SourceError
from streamlearn.protocols import Source
from streamlearn.records import Gap, Headers, Positions, Record

GLANCE_S = 0.02  # how long the first source may be waited for before the others are looked at again


class Beside:
    """A source, and headers that its records are given in front of their own."""

    def __init__(self, source: Source, marks: Headers = ()) -> None:
        self.source, self.marks = source, marks

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str]) -> Sequence[Record]:
        """Marked."""
        records = self.source.poll(max_records, timeout_s, paused)
        if not self.marks:
            return records
        return [record._replace(headers=(*self.marks, *record.headers)) for record in records]


class TogetherSource:
    """Implements `Source`. The first one says when it is all over: a file that has been read to its end."""

    def __init__(self, sources: Sequence[Beside], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources, self._clock, self._turn = list(sources), clock, 0

    def seek(self, positions: Positions) -> None:
        """Errors: SourceError, also when two sources have a partition of the same name."""
        for each in self._sources:
            each.source.seek(positions)
        names = [name for each in self._sources for name in each.source.positions()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"partition {twice[0]} is in two sources: give one of them another name")

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """From one source after the other, so that all get their turn."""
        deadline = self._clock() + timeout_s
        while True:
            for _ in self._sources:
                self._turn = (self._turn + 1) % len(self._sources)
                if records := self._sources[self._turn].poll(max_records, 0.0, paused):
                    return records
            left_s = deadline - self._clock()
            if left_s <= 0:
                return []
            if records := self._sources[0].poll(max_records, min(left_s, GLANCE_S), paused):
                return records

    def positions(self) -> Positions:
        """Of all."""
        return {name: position for each in self._sources for name, position in each.source.positions().items()}

    def ends(self) -> Positions:
        """Of all."""
        return {name: end for each in self._sources for name, end in each.source.ends().items()}

    def identities(self) -> Mapping[str, str]:
        """Of all."""
        return {name: identity for each in self._sources for name, identity in each.source.identities().items()}

    def exhausted(self) -> bool:
        """Once the first is, and the others have given what they had by then."""
        others = [(each.source.ends(), each.source.positions()) for each in self._sources[1:]]
        return self._sources[0].source.exhausted() and all(
            positions.get(name, end) >= end for ends, positions in others for name, end in ends.items()
        )

    def gaps(self) -> Sequence[Gap]:
        """Of all."""
        return [gap for each in self._sources for gap in each.source.gaps()]

    def commit(self, positions: Positions) -> None:
        """To each what is its own."""
        for each in self._sources:
            own = each.source.positions()
            each.source.commit({name: position for name, position in positions.items() if name in own})

    def close(self) -> None:
        """May be called twice."""
        for each in self._sources:
            each.source.close()
