"""What the detectors on the inputs are told, and how they are made."""

from collections.abc import Mapping

from streamlearn.drift.adwin import Adwin, AdwinKeys
from streamlearn.drift.channels import Watched
from streamlearn.drift.detectors import Making, Name
from streamlearn.drift.kswin import Kswin, KswinKeys
from streamlearn.drift.page_hinkley import PageHinkley, PageHinkleyKeys
from streamlearn.drift.patient import AT_ONCE
from streamlearn.settings import Section, key, other


class InputAdwin(AdwinKeys):
    """ADWIN on standardised means of blocks."""

    delta: float = other(AdwinKeys, "delta", 0.002)
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


class InputKeys(Section):
    """Detectors on the inputs."""

    detectors: tuple[Name, ...] = key(("adwin",), "which watch the inputs; empty: none")
    watch: tuple[Watched, ...] = key(
        ("mean", "spread"), "what of each feature: mean, spread (mean distance from what is usual)", min_length=1
    )
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


def makers(settings: InputKeys, channels: int) -> Mapping[Name, Making]:
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
