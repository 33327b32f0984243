"""A stream without an upstream: classes as clouds that turn, slowly or in jumps. A record depends on seed and position alone.

Class c of C is a Gaussian cloud around the angle 2πc/C on a circle in a random plane of the feature space; it turns once in
`turn_every` records. The place of one class is later another's: a drift of the concept, which no frozen model can follow.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from connectors.arrays import tensor
from connectors.waiting import LONGEST_S
from streamlearn.records import Array, Gap, Headers, Positions, Record
from streamlearn.settings import Section, key

BLOCK = 256  # records drawn at once
START_MS = 1_700_000_000_000  # event time of position 0
EVERY_MS = 5  # between two events
JUMPS = 8  # of an abrupt drift, in one turn


class SyntheticSource:
    """Endless or `records` long, as fast as it is read or at `rate_per_s`; seekable, and the same again from any position."""

    class Settings(Section):
        """Settings of the `synthetic` source."""

        name: str = key("synthetic", "name of the stream in partition names", min_length=1)
        seed: int = key(0, "same seed, same stream", ge=0)
        classes: int = key(4, "number of classes", ge=2)
        features: int = key(16, "number of features", ge=2)
        noise: float = key(0.3, "standard deviation of a cloud; the circle's radius is 1", ge=0)
        drift: Literal["gradual", "abrupt", "none"] = key(
            "gradual", "how the circle turns: always a little, in eight jumps, never"
        )
        turn_every: int = key(20_000, "records in which the circle turns once", unit="records", ge=1)
        records: int | None = key(None, "length of the stream; left out, it is endless", unit="records", ge=0)
        rate_per_s: float | None = key(None, "pace; left out, as fast as it is read", unit="records per second", gt=0)
        format: Literal["json", "tensor"] = key("json", "how records are encoded")

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._clock, self._sleep = settings, clock, sleep
        self.partition = f"{settings.name}[0]"
        self._position = self._begin = 0
        self._began = 0.0
        plane = np.random.default_rng(settings.seed).standard_normal((settings.features, 2))
        self._plane = np.linalg.qr(plane)[0]
        self._block = lru_cache(maxsize=2)(self._drawn)

    def seek(self, positions: Positions) -> None:
        """The pace begins here."""
        self._position = self._begin = positions.get(self.partition, 0)
        self._began = self._clock()

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """With a pace, waits for the next record to be due."""
        until = self._clock() + timeout_s
        while not (n := 0 if self.partition in paused else min(max_records, self._released() - self._position)):
            left_s = until - self._clock()
            if left_s <= 0 or self.exhausted():
                return []
            self._sleep(min(left_s, max(LONGEST_S, self._due_in_s())))
        begin, self._position = self._position, self._position + n
        return [self._record(position) for position in range(begin, self._position)]

    def positions(self) -> Positions:
        """The next position."""
        return {self.partition: self._position}

    def ends(self) -> Positions:
        """What is due by now; without a pace and a length there is no end, and no lag."""
        endless = self._settings.rate_per_s is None and self._settings.records is None
        return {self.partition: self._position if endless else max(self._position, self._released())}

    def identities(self) -> Mapping[str, str]:
        """None: the seed says it all."""
        return {}

    def exhausted(self) -> bool:
        """After `records`."""
        return self._settings.records is not None and self._position >= self._settings.records

    def gaps(self) -> list[Gap]:
        """Never any."""
        return []

    def commit(self, positions: Positions) -> None:
        """Nobody to tell."""

    def close(self) -> None:
        """Nothing to let go."""

    def _released(self) -> int:
        """One past the newest record that may be read now."""
        length = self._settings.records if self._settings.records is not None else 1 << 62
        if self._settings.rate_per_s is None:
            return length
        return min(length, self._begin + int((self._clock() - self._began) * self._settings.rate_per_s))

    def _due_in_s(self) -> float:
        if self._settings.rate_per_s is None:
            return 0.0
        return self._began + (self._position + 1 - self._begin) / self._settings.rate_per_s - self._clock()

    def _record(self, position: int) -> Record:
        x, labels = self._block(position // BLOCK)
        features, label = x[position % BLOCK], int(labels[position % BLOCK])
        headers: Headers = ()
        if self._settings.format == "tensor":
            value, headers = tensor(features, label)
        else:
            value = msgspec.json.encode({"features": features.tolist(), "label": label})
        return Record(self.partition, position, value, None, headers, START_MS + EVERY_MS * position)

    def _drawn(self, block: int) -> tuple[Array, Array]:
        """Features float32 [256, features] and labels [256] of the positions from 256 · block on."""
        s = self._settings
        generator = np.random.default_rng((s.seed, block))
        labels = generator.integers(0, s.classes, BLOCK)
        angles = 2 * math.pi * (labels / s.classes + self._turn(np.arange(BLOCK * block, BLOCK * (block + 1))))
        centres = np.stack([np.cos(angles), np.sin(angles)], 1) @ self._plane.T
        return (centres + s.noise * generator.standard_normal((BLOCK, s.features))).astype("<f4"), labels

    def _turn(self, positions: Array) -> Array:
        """How far the circle has turned, in turns."""
        turns = positions / self._settings.turn_every
        if self._settings.drift == "abrupt":
            return np.floor(JUMPS * turns) / JUMPS
        return turns if self._settings.drift == "gradual" else np.zeros(len(positions))
