"""The detectors by name."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from streamlearn.drift.adwin import Adwin
from streamlearn.drift.kswin import Kswin
from streamlearn.drift.page_hinkley import PageHinkley
from streamlearn.drift.patient import PatientDetector

Name = Literal["adwin", "page_hinkley", "kswin"]
OnAnswers = Literal[Name, "surprise"]
"""What may watch the answers: the same on the error, and `adwin` on the surprise."""
DETECTORS: Mapping[Name, type[PatientDetector]] = {"adwin": Adwin, "page_hinkley": PageHinkley, "kswin": Kswin}
Making: TypeAlias = Callable[[], PatientDetector]
