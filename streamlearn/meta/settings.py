"""What `streamlearn meta-train` is told beside network and inputs. No torch here: the configuration reads this."""

from pathlib import Path
from typing import Literal

from streamlearn.settings import Section, key

Name = Literal["maml", "fomaml", "anil", "reptile", "imaml", "oml", "anml", "comln", "supervised"]


class ViewSettings(Section):
    """More than one look at each image that is trained on; what is held out stays as it is. Nothing by default."""

    quarter_turns: bool = key(False, "images turned by 90, 180 and 270 degrees are further classes (Santoro et al. 2016)")
    shift: float = key(0.0, "moved by up to so much along each axis, anew whenever drawn", unit="pixels", ge=0)
    turn: float = key(0.0, "turned by up to so much either way, anew whenever drawn", unit="degrees", ge=0, le=180)
    stretch: float = key(0.0, "each side up to this share longer or shorter, anew whenever drawn", ge=0, le=1)


class CorpusSettings(Section):
    """Labelled samples, all in memory."""

    path: Path = key(..., "npz file with inputs and labels, one row a sample")
    x: str = key("x", "name of the inputs [n, *shape] in the file")
    y: str = key("y", "name of the labels [n] in the file: integers or strings")
    held_out: float = key(0.1, "share of the classes that validation alone sees", gt=0, lt=1)
    views: ViewSettings = key(ViewSettings(), "images seen otherwise")


class MetaSettings(Section):
    """How a warm start is made. Keys that are left out take what the algorithm's authors used, or nearly."""

    algorithm: Name = key(..., "maml, fomaml, anil, reptile, imaml, oml, anml, comln or supervised")
    order: Literal[1, 2] | None = key(
        None, "of the meta-gradient: 2 through the inner loop, 1 as ANML's released code; empty: 2"
    )
    steps: int = key(20_000, "meta-steps", ge=1)
    meta_batch: int | None = key(None, "episodes of one meta-step; empty: the algorithm's own", unit="episodes", ge=1)
    batched: bool = key(True, "all episodes of a meta-step in one pass; takes more memory")
    inner_lr: float = key(0.1, "step size of the inner loop", gt=0)
    inner_steps: int = key(5, "steps of the inner loop (few-shot algorithms)", ge=1)
    outer_lr: float | None = key(None, "step size of the outer loop, Adam; Reptile's share of the way, falling to 0", gt=0)
    cooldown: float = key(
        0.0, "share of the steps, the last ones, in which the outer step size falls to 0 (Reptile's always does)", ge=0, le=1
    )
    clip_norm: float | None = key(10.0, "bound on the global norm of the meta-gradient; empty: none", gt=0)
    inner_shots: int | None = key(
        None, "rows of each class in one inner step of training, in turns; empty: all (few-shot)", unit="rows", ge=1
    )
    ways: int = key(5, "classes of one episode (few-shot)", unit="labels", ge=2)
    shots: int = key(5, "support rows of each class (few-shot)", unit="rows", ge=1)
    train_shots: int | None = key(None, "the same while training; empty: as many as shots (few-shot)", unit="rows", ge=1)
    queries: int = key(10, "query rows of each class (few-shot)", unit="rows", ge=1)
    classes: int | None = key(None, "classes of one trajectory; empty: 3 for OML, 1 for ANML", unit="labels", ge=1)
    drawings: int | None = key(None, "rows of each class of a trajectory; empty: 5 for OML, 20 for ANML", unit="rows", ge=1)
    remember: int | None = key(
        None, "rows of any class in a trajectory's query; empty: 15 for OML, 64 for ANML", unit="rows", ge=0
    )
    further: int | None = key(
        None, "rows of the trajectory's classes that only the query sees; empty: 5 for OML, 0 for ANML", ge=0
    )
    meta_head: bool = key(
        True, "the outer loop moves the head too (oml, anml), as the released code does and the paper does not"
    )
    batch: int = key(64, "rows of a step, of any classes (supervised)", unit="rows", ge=1)
    plastic: Literal["head", "inner"] = key(
        "head", "what the stream may move after oml, anml and supervised: the head, or all the inner loop moves"
    )
    proximal: float = key(1.0, "strength of the pull to the start (imaml)", gt=0)
    cg_steps: int = key(20, "most steps of conjugate gradients (imaml)", ge=1)
    tolerance: float = key(1e-4, "relative residual at which conjugate gradients stop; error of each step of the flow", gt=0)
    duration: float = key(1.0, "how long the head flows at first; learned (comln)", gt=0)
    rates: tuple[float, ...] = key((0.3, 0.1, 0.03, 0.01, 0.003), "step sizes of deployment that validation tries (oml, anml)")
    validate_every: int = key(500, "meta-steps between validations", unit="steps", ge=1)
    validation_episodes: int = key(100, "episodes of a validation (few-shot)", unit="episodes", ge=1)
    validation_steps: int | None = key(
        None, "steps of the inner loop in a validation; empty: as in training (few-shot)", unit="steps", ge=1
    )
    validation_classes: int = key(50, "held-out classes that a validation learns one after another (oml, anml)", ge=2)
    validation_shots: int = key(15, "rows of each that it learns; the others of that class are asked", unit="rows", ge=1)
