"""The family as a table: an algorithm is a partition of the parameters, a gradient kernel, and the learner it is made for."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from streamlearn.errors import ConfigError
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.partition import HEAD, TRUNK, WHOLE
from streamlearn.meta.settings import MetaSettings


class Algorithm(NamedTuple):
    """One row of the table."""

    moves: tuple[str, ...]  # what the inner loop moves, by the beginning of its name
    kernel: Literal["unrolled", "implicit", "flow", "interpolate"]
    order: int | None  # of the meta-gradient, unless the settings say otherwise
    episodes: Literal["few-shot", "trajectory", "batch"]
    learner: str  # in stream time
    meta_batch: int
    outer_lr: float


ALGORITHMS: Mapping[str, Algorithm] = {
    "maml": Algorithm(WHOLE, "unrolled", 2, "few-shot", "sgd", 8, 1e-3),
    "fomaml": Algorithm(WHOLE, "unrolled", 1, "few-shot", "sgd", 8, 1e-3),
    "anil": Algorithm(HEAD, "unrolled", 2, "few-shot", "sgd", 8, 1e-3),
    "reptile": Algorithm(WHOLE, "interpolate", None, "few-shot", "sgd", 5, 1.0),
    "imaml": Algorithm(WHOLE, "implicit", None, "few-shot", "sgd", 4, 1e-3),
    "oml": Algorithm(HEAD, "unrolled", 2, "trajectory", "sgd", 1, 1e-3),
    "anml": Algorithm(TRUNK, "unrolled", 2, "trajectory", "sgd", 1, 1e-3),
    "comln": Algorithm(HEAD, "flow", None, "few-shot", "gradient-flow", 4, 1e-3),
    "supervised": Algorithm(HEAD, "unrolled", None, "batch", "streaming-lda", 1, 1e-3),  # unrolled over no inner step at all
}


class Trajectory(NamedTuple):
    """What one trajectory is made of."""

    classes: int
    drawings: int
    remember: int
    further: int


def trajectory(settings: MetaSettings) -> Trajectory:
    """OML: 3 classes of 5, judged on 5 others of each and 15 of any. ANML: 1 of 20, judged on these and 64 of any."""
    own = Trajectory(3, 5, 15, 5) if settings.algorithm == "oml" else Trajectory(1, 20, 64, 0)
    said = (settings.classes, settings.drawings, settings.remember, settings.further)
    return Trajectory(*(mine if theirs is None else theirs for mine, theirs in zip(own, said, strict=True)))


def check_size(settings: MetaSettings, corpus: Corpus) -> None:
    """Errors: ConfigError when the corpus has too few classes, or too few rows of one, for an episode."""
    few, path = ALGORITHMS[settings.algorithm].episodes == "few-shot", trajectory(settings)
    shots = max(settings.shots, settings.train_shots or 0)
    ways, need = (settings.ways, shots + settings.queries) if few else (path.classes, path.drawings + path.further)
    if ALGORITHMS[settings.algorithm].episodes == "batch":
        ways, need = 2, 1
    classes = min(len(corpus.train), len(corpus.held_out)) if few else len(corpus.train)
    smallest = min(len(rows) for rows in (*corpus.train, *corpus.held_out))
    if smallest < max(need, 2) or classes < ways:
        raise ConfigError(
            f"an episode takes {ways} classes of {need} rows; the corpus has {classes} classes, of which the smallest has "
            f"{smallest} rows: expected meta.ways, shots, train_shots, queries, classes or drawings to fit, or another "
            "corpus.held_out"
        )
