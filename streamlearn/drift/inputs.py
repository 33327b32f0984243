"""Drift of the inputs: has the mean of a feature moved, whatever the labels say?

Rows are taken in blocks. A block's mean, in standard deviations, is one value for each channel: a feature, or where there are
too many of them a random projection of all, fixed by a seed. A detector watches every channel, and is one detector to the
outside: it reports once, whichever of its channels moved. What is usual it learns from the first records, and anew from those
that follow a detection: a first half tells mean and spread of each feature, a second one how much the channels vary.

Owned by the learner's thread. Blocks are cut by count, so that how many rows come in one call changes no bit (P5).
"""

from collections import deque
from collections.abc import Mapping

import numpy as np

from streamlearn.drift.adwin import Adwin, AdwinKeys
from streamlearn.drift.channels import Channels, Usual
from streamlearn.drift.detectors import Making, Name
from streamlearn.drift.features import Features
from streamlearn.drift.kswin import Kswin, KswinKeys
from streamlearn.drift.moved import Moved
from streamlearn.drift.page_hinkley import PageHinkley, PageHinkleyKeys
from streamlearn.drift.patient import AT_ONCE, PatientDetector
from streamlearn.records import Array, State
from streamlearn.settings import Section, key, other


class InputAdwin(AdwinKeys):
    """ADWIN on standardised means of blocks."""

    clock: int = key(1, "how often the window is tested", unit="blocks", ge=1)
    min_window_length: int = key(5, "least length of a half that is tested", unit="blocks", ge=1)


class InputPageHinkley(PageHinkleyKeys):
    """Page-Hinkley on standardised means of blocks."""

    delta: float = key(0.5, "change of the mean that is tolerated, in standard deviations of a block's mean", ge=0)
    threshold: float = key(20.0, "distance of the sum from its extreme that is a change, in the same", gt=0)


class InputKswin(KswinKeys):
    """KSWIN on standardised means of blocks."""

    window_size: int = other(KswinKeys, "window_size", 60)
    stat_size: int = other(KswinKeys, "stat_size", 20)
    every: int = other(KswinKeys, "every", 5)


class Inputs:
    """Named detectors, each over all channels."""

    class Settings(Section):
        """Detectors on the inputs."""

        detectors: tuple[Name, ...] = key(("adwin",), "which watch the inputs; empty: none")
        warm_up: int = key(
            1000,
            "records from which a detector learns what is usual, at the start and after each detection",
            unit="records",
            ge=4,
        )
        refractory: int = key(1000, "records after a detection in which it reports no other", unit="records", ge=0)
        block: int = key(20, "records whose mean is one value of a detector", unit="records", ge=1)
        max_features: int = key(64, "features watched one by one; of more, random projections are", ge=1, le=1024)
        projections: int = key(32, "random projections of inputs of more features", ge=1, le=1024)
        seed: int = key(0, "which projections", ge=0)
        adwin: InputAdwin = key(InputAdwin(), "adaptive windowing; `delta` is for all channels together")
        page_hinkley: InputPageHinkley = key(InputPageHinkley(), "the Page-Hinkley test")
        kswin: InputKswin = key(InputKswin(), "the Kolmogorov-Smirnov windowing test; `alpha` is for all channels together")

    def __init__(self, settings: Settings, features: Features, *, recent_rows: int, most: int) -> None:
        self.settings, self.features, self._most = settings, features, most
        self.rows = 0
        channels = Channels(len(features), settings.max_features, settings.projections, settings.seed)
        makers = _makers(settings, max(1, channels.count))
        self._watches = {name: Watch(settings, channels, makers[name]) for name in settings.detectors}
        self._waiting = np.zeros((0, len(features)))  # rows of the block that is not full yet
        self._newest: deque[Array] = deque(maxlen=max(1, recent_rows // settings.block))  # means of blocks

    def take(self, x: Array) -> list[tuple[int, Name, tuple[Moved, ...]]]:
        """The next rows [n, *shape]: detections, each with the place in `x` of the row at which it came."""
        if not self._watches or not len(x):
            return []
        found, size, waited = [], self.settings.block, len(self._waiting)
        rows = np.concatenate([self._waiting, self.features.of(x)])
        for end in range(size, len(rows) + 1, size):
            found += [(end - waited - 1, name, moved) for name, moved in self._looked(rows[end - size : end])]
        self._waiting = rows[len(rows) - len(rows) % size :].copy()
        self.rows += len(x)
        return found

    def _looked(self, block: Array) -> list[tuple[Name, tuple[Moved, ...]]]:
        self._newest.append(mean_of(block))
        usual = {name: watch.usual for name, watch in self._watches.items()}
        fired: list[Name] = [name for name, watch in self._watches.items() if watch.take(block)]
        return [(name, self._moved(usual[name])) for name in fired]

    def _moved(self, usual: Usual) -> tuple[Moved, ...]:
        """The features that are furthest from their usual mean over the last records."""
        now = mean_of(np.stack(self._newest))
        sizes = np.nan_to_num((now - usual.mean) / usual.deviation)
        most = np.argsort(-np.abs(sizes), kind="stable")[: self._most]
        return tuple(Moved(int(i), float(usual.mean[i]), float(now[i]), float(sizes[i])) for i in most if sizes[i])

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        newest = np.array(self._newest, np.float64).reshape(len(self._newest), len(self.features))
        arrays = {"waiting": self._waiting.copy(), "newest": newest}
        own = State(arrays, {"rows": self.rows, "block": self.settings.block})
        return State.nest({"own": own} | {f"at_{name}": watch.state() for name, watch in self._watches.items()})

    def restore(self, state: State) -> None:
        """Go on from a saved state; what was cut or counted by other settings begins anew."""
        own = state.under("own")
        self._waiting = self._waiting[:0]
        self._newest.clear()
        if own.values.get("block") == self.settings.block:
            self._waiting = own.arrays["waiting"].copy()
            self._newest.extend(own.arrays["newest"].copy())
        self.rows = own.values.get("rows", 0)
        for name, watch in self._watches.items():
            watch.restore(state.under(f"at_{name}"))


class Watch:
    """One detector over all channels: learns what is usual, then watches."""

    def __init__(self, settings: Inputs.Settings, channels: Channels, make: Making) -> None:
        self._channels, self._make = channels, make
        self._half = max(2, settings.warm_up // settings.block // 2)  # blocks of each half of the warm-up
        self._refractory = -(-settings.refractory // settings.block)
        self._quiet = 0  # blocks in which nothing is reported
        self._made_by = [settings.block, self._half, settings.seed, channels.count, channels.features]
        self._begin()

    def _begin(self) -> None:
        self._blocks = 0
        self.usual, self._spread = Usual(self._channels.features), Usual(self._channels.count)
        self._detectors: list[PatientDetector] = []

    def take(self, block: Array) -> bool:
        """Rows [n, features]; True when a change was detected."""
        self._blocks += 1
        self._quiet = max(0, self._quiet - 1)
        if self._blocks <= self._half:
            self.usual.take(block)
            return False
        values = self._channels.of(block, self.usual)
        if self._blocks <= 2 * self._half:
            self._spread.take(values[None])
            return False
        if not self._detectors:
            self._detectors = [self._make() for _ in range(self._channels.count)]
        values = (values - self._spread.mean) / np.maximum(self._spread.deviation, LEAST_SPREAD / np.sqrt(len(block)))
        fired = [detector.update(value) for detector, value in zip(self._detectors, values.tolist(), strict=True)]
        if not any(fired) or self._quiet:
            return False
        self._quiet = self._refractory
        self._begin()
        return True

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        own = State(values={"made_by": self._made_by, "blocks": self._blocks, "quiet": self._quiet})
        parts = {f"channel_{i}": detector.state() for i, detector in enumerate(self._detectors)}
        return State.nest({"own": own, "usual": self.usual.state(), "spread": self._spread.state(), **parts})

    def restore(self, state: State) -> None:
        """Go on from a saved state, or begin anew where other settings made it."""
        self._begin()
        self._quiet = 0
        own = state.under("own").values
        if own.get("made_by") != self._made_by:
            return
        self._blocks, self._quiet = own["blocks"], own["quiet"]
        self.usual.restore(state.under("usual"))
        self._spread.restore(state.under("spread"))
        if state.under("channel_0").values:
            self._detectors = [self._make() for _ in range(self._channels.count)]
            for i, detector in enumerate(self._detectors):
                detector.restore(state.under(f"channel_{i}"))


LEAST_SPREAD = 0.5
"""Of a channel, as a share of what the mean of independent rows has: one that stood still in the warm-up is no hair trigger."""


def mean_of(rows: Array) -> Array:
    """Of each column, over what is no NaN; NaN where all are."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, rows, 0.0).sum(0) / known.sum(0)
    return mean


def _makers(settings: Inputs.Settings, channels: int) -> Mapping[Name, Making]:
    """False alarms of all channels together are held to what one detector is allowed."""
    adwin = settings.adwin.model_copy(update={"delta": settings.adwin.delta / channels})
    kswin = settings.kswin.model_copy(update={"alpha": settings.kswin.alpha / channels})
    adwin_settings = Adwin.Settings(**AT_ONCE, **adwin.model_dump())
    page_hinkley_settings = PageHinkley.Settings(**AT_ONCE, **settings.page_hinkley.model_dump())
    kswin_settings = Kswin.Settings(**AT_ONCE, **kswin.model_dump())
    return {
        "adwin": lambda: Adwin(adwin_settings),
        "page_hinkley": lambda: PageHinkley(page_hinkley_settings),
        "kswin": lambda: Kswin(kswin_settings),
    }
