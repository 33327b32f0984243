"""Drift: detectors over the error and the surprise of each row and over the inputs, and the newest of what they found.

The surprise is 1 − the probability that the answer gave to the label. It tells of answers that are still right and no longer
sure, and of wrong ones that were not sure before: where probabilities are honest, it rises before and further than the error.
"""

from collections.abc import Iterable, Mapping, Sequence

from streamlearn.drift.adwin import Adwin
from streamlearn.drift.classes import Classes
from streamlearn.drift.detectors import OnAnswers
from streamlearn.drift.features import Features
from streamlearn.drift.inputs import Inputs
from streamlearn.drift.kswin import Kswin
from streamlearn.drift.moved import Mark, Moved
from streamlearn.drift.page_hinkley import PageHinkley
from streamlearn.drift.reactions import ReactionKeys
from streamlearn.errors import CheckpointError
from streamlearn.protocols import Detector
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NOTHING = Features((0,))
SURPRISE: OnAnswers = "surprise"


class Drift:
    """Named detectors over the error, others over the inputs. Part of the checkpoint; owned by the learner's thread."""

    class Settings(Section):
        """Whether the world changes, and what is done then."""

        detectors: tuple[OnAnswers, ...] = key(
            ("adwin", "page_hinkley", "surprise"), "which watch the answers: adwin, page_hinkley, kswin on the error, surprise"
        )
        adwin: Adwin.Settings = key(Adwin.Settings(), "adaptive windowing")
        page_hinkley: PageHinkley.Settings = key(PageHinkley.Settings(), "the Page-Hinkley test")
        kswin: Kswin.Settings = key(Kswin.Settings(), "the Kolmogorov-Smirnov windowing test")
        surprise: Adwin.Settings = key(Adwin.Settings(), "adaptive windowing on 1 − the probability given to the label")
        inputs: Inputs.Settings = key(Inputs.Settings(), "detectors on the inputs")
        recent_rows: int = key(200, "newest rows in which classes and features are compared with before", unit="rows", ge=1)
        most_moved: int = key(5, "classes or features that a detection names, those first that moved most", ge=0, le=20)
        max_marks: int = key(100, "detections remembered for the page", ge=1)
        then: ReactionKeys = key(ReactionKeys(), "what is done at a detection")

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        settings: Settings = Settings(),  # noqa: B008  frozen
        features: Features = NOTHING,
    ) -> None:
        """`detectors` take the place of those that `settings` names."""
        self.detectors, self.max_marks = dict(detectors), settings.max_marks
        recent_rows, most = settings.recent_rows, settings.most_moved
        looked_at = settings.inputs if len(features) else Inputs.Settings(detectors=())
        self.inputs = Inputs(looked_at, features, recent_rows=recent_rows, most=most)
        self.rows = 0
        self.marks: tuple[Mark, ...] = ()
        self.counts = dict.fromkeys(self.detectors, 0)
        self.input_counts: dict[str, int] = dict.fromkeys(self.inputs.settings.detectors, 0)
        self._classes = Classes(recent_rows, most)

    @classmethod
    def of(cls, settings: "Drift.Settings", features: Features = NOTHING) -> "Drift":
        """The configured detectors, under their names of `DETECTORS`; without features none watches the inputs."""
        made: dict[str, Detector] = {
            "adwin": Adwin(settings.adwin),
            "page_hinkley": PageHinkley(settings.page_hinkley),
            "kswin": Kswin(settings.kswin),
            SURPRISE: Adwin(settings.surprise),
        }
        return cls({name: made[name] for name in settings.detectors}, settings, features)

    def update(
        self,
        errors: Sequence[float],
        labels: Iterable[int] = (),
        x: Array | None = None,
        *,
        new: Sequence[int] | None = None,
        surprises: Sequence[float] | None = None,
    ) -> tuple[Mark, ...]:
        """Take the next rows that were scored, in stream order; the detections among them.

        `errors` and `surprises` are those of `Answers` (without these, every answer was sure), `labels` rows of the label
        map. Of the inputs `x` only those at `new` are looked at: the others were when they came, before their labels.
        Without `new`, all are.
        """
        first, found = self.rows, []
        labels = [*labels] or [0] * len(errors)
        for error, surprise, label in zip(errors, errors if surprises is None else surprises, labels, strict=True):
            self.rows += 1
            self._classes.take(label, error)
            shown = {name: surprise if name == SURPRISE else error for name in self.detectors}
            fired = [name for name, detector in self.detectors.items() if detector.update(shown[name])]
            found += [Mark(self.rows, name, "error", self._classes.moved()) for name in fired]
        if x is not None:
            places = range(len(x)) if new is None else new
            found += self._looked(x if new is None else x[list(new)], [first + 1 + i for i in places])
        return self._noted(sorted(found, key=lambda mark: mark.row))

    def look(self, x: Array) -> tuple[Mark, ...]:
        """Take inputs whose labels will come later; the detections among them, at the last row that was scored."""
        return self._noted(self._looked(x, [self.rows] * len(x)))

    def _looked(self, x: Array, rows: Sequence[int]) -> list[Mark]:
        return [Mark(rows[i], name, "inputs", moved) for i, name, moved in self.inputs.take(x)]

    def _noted(self, found: Sequence[Mark]) -> tuple[Mark, ...]:
        for mark in found:
            (self.counts if mark.on == "error" else self.input_counts)[mark.detector] += 1
        self.marks = (*self.marks, *found)[-self.max_marks :]
        return tuple(found)

    def newest(self, on: str) -> tuple[Moved, ...]:
        """What moved at the newest detection on the error or on the inputs."""
        return next((mark.moved for mark in reversed(self.marks) if mark.on == on), ())

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        counts = {"counts": dict(self.counts), "input_counts": dict(self.input_counts)}
        own = State(values={"rows": self.rows, "marks": [mark.json() for mark in self.marks], **counts})
        parts = {"found": own, "classes": self._classes.state(), "inputs": self.inputs.state()}
        return State.nest(parts | {f"at_{name}": detector.state() for name, detector in self.detectors.items()})

    def restore(self, state: State) -> None:
        """Go on from a saved state; a detector configured since begins with its warm-up. Errors: CheckpointError."""
        try:
            own = state.under("found").values
            self.rows, self.marks = own["rows"], tuple(Mark.of(mark) for mark in own["marks"])[-self.max_marks :]
            self.counts = {name: own["counts"].get(name, 0) for name in self.detectors}
            looked = own.get("input_counts", {})
            self.input_counts = {name: looked.get(name, 0) for name in self.input_counts}
            for name, detector in self.detectors.items():
                if (saved := state.under(f"at_{name}")).values:
                    detector.restore(saved)
            self._classes.restore(state.under("classes"))
            self.inputs.restore(state.under("inputs"))
        except KeyError as error:
            raise CheckpointError(f"drift: the checkpoint lacks {error}: it was written by another program") from error
