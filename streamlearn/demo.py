"""The demo's stream: handwritten digits, turned further and further, written to the embedded log at a steady pace.

Sample i is a function of i alone, so a feeder that starts again goes on where the log ends.
"""

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import structlog

from streamlearn.errors import ConfigError, SinkError
from streamlearn.protocols import Sink
from streamlearn.records import Array, Message

log = structlog.get_logger()

DEGREES_PER_SAMPLE = 0.0030001  # at 200 samples a second half a turn takes five minutes; no angle comes twice
SHAPE = (8, 8)


def turned_digit(i: int, seed: int = 0) -> tuple[Array, int]:
    """Sample i: an 8x8 image in [0, 1], float32, and its digit. Each pass over the images has an order of its own."""
    images, labels = _digits()
    which = int(_order(seed, i // len(labels))[i % len(labels)])
    turned = _ndimage().rotate(images[which], i * DEGREES_PER_SAMPLE % 360.0, reshape=False, order=1)
    return np.clip(turned, 0.0, 1.0, dtype=np.float32), int(labels[which])


def message(i: int, seed: int = 0) -> Message:
    """Sample i as a JSON record; its id is its number."""
    image, label = turned_digit(i, seed)
    return Message(msgspec.json.encode({"id": str(i), "features": np.round(image, 3).tolist(), "label": label}))


class Feeder:
    """A service that keeps the demo's log growing."""

    def __init__(
        self,
        open_log: Callable[[], tuple[Sink, int]],
        *,
        per_s: float,
        total: int | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_log` gives the sink and the number of samples that were ever written to it."""
        self._open_log, self._per_s, self._total, self._seed, self._clock = open_log, per_s, total, seed, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin to feed."""
        _digits()  # fails here, in the caller's thread, when scikit-learn is missing
        self._thread.start()

    def withdraw(self) -> None:
        """Feed no more."""
        self._stop.set()

    def stop(self, timeout_s: float) -> None:
        """Stop feeding."""
        self.withdraw()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        sink, first = self._open_log()
        began, written = self._clock(), 0
        try:
            while not self._stop.wait(0.02) and (self._total is None or first + written < self._total):
                due = int((self._clock() - began) * self._per_s) - written
                sink.write([message(first + written + i, self._seed) for i in range(min(due, 100))])
                sink.flush(5.0)
                written += min(due, 100)
        except SinkError as error:
            log.error("feeder.failed", error=str(error), next_step="the demo goes on without new samples")
        finally:
            sink.close()


@lru_cache(maxsize=1)
def _digits() -> tuple[Array, Array]:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise ConfigError("the demo needs scikit-learn: install it with pip install 'streamlearn[demo]'") from error
    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target


def _ndimage() -> Any:
    from scipy import ndimage  # noqa: PLC0415  comes with scikit-learn

    return ndimage


@lru_cache(maxsize=4)
def _order(seed: int, turn: int) -> Array:
    return np.random.default_rng((seed, turn)).permutation(len(_digits()[1]))
