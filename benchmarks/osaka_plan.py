"""Rows of `benchmarks.osaka`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamlearn.models.classifier import ModelSettings

WAYS, EACH = 10, 5
CHUNK = WAYS * EACH
MODEL = ModelSettings(hidden=(100, 100))
STAYS = (0.9, 0.98)  # chance that the next chunk is of the same task
SHARES: Mapping[str, float] = {"Omniglot": 0.5, "MNIST": 0.25, "Fashion-MNIST": 0.25}
STEPS, TUNED_STEPS = 500, 60
TUNED_SEED = 1000
PRE_STEPS = 400


class Row(NamedTuple):
    """A learner, what is always set, and among what the rest is chosen on a stream of another seed."""

    about: str
    learner: str
    settings: Mapping[str, Any]
    tried: tuple[Mapping[str, Any], ...]
    is_warm: bool = False


RATES = (1.0, 0.3, 0.1)
FAST = tuple({"inner_lr": rate, "inner_steps": steps} for rate, steps in ((0.1, 2), (0.3, 2), (0.3, 5)))
ROWS: Mapping[str, Row] = {
    "sgd": Row("no memory", "sgd", {"chunk": CHUNK}, tuple({"learning_rate": rate} for rate in RATES)),
    "er": Row(
        "200 images, 50 replayed with each chunk",
        "er",
        {"chunk": CHUNK, "replay_rows": CHUNK},
        tuple({"learning_rate": rate} for rate in RATES),
    ),
    "la-maml": Row(
        "200 images, 50 replayed with each chunk, 5 inner steps, 5 glances",
        "la-maml",
        {"chunk": CHUNK, "inner_chunks": 5, "glances": 5, "replay_rows": CHUNK},
        tuple({"inner_lr": rate} for rate in (0.1, 0.05, 0.02)),
    ),
    "continual-maml": Row("from scratch", "continual-maml", {"chunk": CHUNK}, FAST),
    "no-detection": Row(
        "the same, never a switch: the slow weights learn from every pair of chunks",
        "continual-maml",
        {"chunk": CHUNK, "switch_share": None},
        FAST,
    ),
    "pre-trained": Row(
        f"continual-maml from a MAML warm start: {PRE_STEPS} meta-steps of 4 tasks of background characters",
        "continual-maml",
        {"chunk": CHUNK},
        FAST,
        is_warm=True,
    ),
}
