"""What `benchmarks.omniglot` runs, and what others found of the same."""

from collections.abc import Mapping
from typing import Any, NamedTuple

LENGTHS = (10, 50, 100, 200, 400, 600)
TAUGHT, ASKED = 15, 5  # drawings of each character
TRUNKS = ("random", "supervised", "supervised-views", "oml", "anml-1", "anml-2")
MEMORY, LOOK_AHEAD = 1000, 5  # drawings that are held, and that La-MAML takes at once


class Meta(NamedTuple):
    """How long and how a trunk is trained."""

    steps: int
    settings: Mapping[str, Any] = {}  # beside the algorithm and its order
    views: Mapping[str, Any] = {}  # of the background characters


VIEWS = {"quarter_turns": True, "shift": 2, "turn": 15, "stretch": 0.15}


class Width(NamedTuple):
    """A network and what its trunks are trained with."""

    about: str
    channels: int
    gate_channels: int
    trained: Mapping[str, Meta]
    layout: str = "pooled"
    shape: tuple[int, ...] = (28, 28)
    validation_classes: int = 50  # held-out background characters on which a head's step size is chosen
    lengths: tuple[int, ...] = LENGTHS


WIDTHS: Mapping[str, Width] = {
    "narrow": Width(
        "16 channels in the trunk (144 features), 8 in the gate; trunks trained for about 20 s of one CPU core each",
        16,
        8,
        {
            "supervised": Meta(400, {"validate_every": 100}),
            "supervised-views": Meta(400, {"validate_every": 100, "cooldown": 0.5}, VIEWS),
            "oml": Meta(400, {"inner_lr": 0.03, "outer_lr": 3e-3, "validate_every": 100}),
            "anml-1": Meta(40, {"meta_batch": 4, "outer_lr": 3e-3, "validate_every": 20}),
            "anml-2": Meta(30, {"meta_batch": 4, "outer_lr": 3e-3, "validate_every": 15}),
        },
    ),
    "medium": Width(
        "64 channels in the trunk (576 features), 28 in the gate; trunks trained for about ten minutes of one CPU core each,"
        " `supervised-views` for 37",
        64,
        28,
        {
            "supervised": Meta(4000, {"validate_every": 1000}),
            "supervised-views": Meta(12_000, {"validate_every": 2000, "cooldown": 0.5}, VIEWS),
            "oml": Meta(3000, {"inner_lr": 0.03, "outer_lr": 1e-3, "validate_every": 1000}),
            "anml-1": Meta(600, {"meta_batch": 4, "outer_lr": 1e-3, "validate_every": 150}),
            "anml-2": Meta(500, {"meta_batch": 4, "outer_lr": 1e-3, "validate_every": 125}),
        },
    ),
    "full": Width(
        "256 channels in the trunk (2304 features), 112 in the gate, the published steps; made for a GPU",
        256,
        112,
        {
            "supervised": Meta(20_000, {"validate_every": 1000}),
            "supervised-views": Meta(60_000, {"validate_every": 2000, "cooldown": 0.5}, VIEWS),
            "oml": Meta(20_000, {"inner_lr": 0.03, "validate_every": 1000}),
            "anml-1": Meta(20_000, {"validate_every": 1000}),
            "anml-2": Meta(20_000, {"validate_every": 1000}),
        },
    ),
}


class Head(NamedTuple):
    """A learner on a trunk's features, one sample an update."""

    learner: str
    settings: Mapping[str, Any]
    rate: str = ""  # which setting is chosen on held-out background characters,
    rates: tuple[float, ...] = ()  # and out of what


REPLAYED = {"replay_rows": 10, "memory": {"rows": MEMORY}}
LOOKING = {"chunk": LOOK_AHEAD, "inner_chunks": LOOK_AHEAD, "glances": 2, "meta_lr": 0.1}
HEADS: Mapping[str, Head] = {
    "sgd": Head("sgd", {"clip_norm": None}, "learning_rate", (0.3, 0.1, 0.03, 0.01, 0.003)),
    "er": Head("er", {"chunk": 1, **REPLAYED}, "learning_rate", (1.0, 0.3, 0.1)),
    "la-maml": Head("la-maml", {**LOOKING, **REPLAYED}, "inner_lr", (0.3, 0.1, 0.03)),
    "streaming-lda": Head("streaming-lda", {}),
    "nearest-mean": Head("nearest-mean", {}),
}
CONTROL = "nearest-mean"

PUBLISHED: tuple[tuple[str, Mapping[int, str]], ...] = (
    ("ANML, its paper (from memory)", {600: "63.8"}),
    (
        "ANML, released code (order 1), run again by Numenta",
        {10: "84 ± 5", 50: "84 ± 2", 100: "81 ± 1", 200: "77 ± 1", 600: "64 ± 0"},
    ),
    ("ANML, Numenta's own", {10: "88 ± 5", 50: "88 ± 2", 100: "85 ± 2", 200: "80 ± 1", 600: "66 ± 1"}),
    ("ANML, higherANML (order 2)", {10: "90", 50: "89", 100: "85", 200: "80", 400: "72", 600: "65"}),
    (
        "OML, released code, run again by Numenta, 20,000 steps",
        {10: "91 ± 4", 50: "82 ± 3", 100: "76 ± 3", 200: "69 ± 2", 600: "55 ± 1"},
    ),
    ("OML, Numenta's own", {10: "93", 50: "87", 100: "80", 200: "72", 600: "59"}),
    ("OML's network, trained as ANML is", {10: "94", 50: "86", 100: "82", 200: "74", 600: "62"}),
)
"""Full width; per cent of held-out drawings, the head alone learning. By number of characters."""
