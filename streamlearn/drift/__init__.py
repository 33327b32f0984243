"""Has the law of the stream changed? Detectors on the error and on the inputs, and what is done when one fires.

river finds the change; see `patient.py` for what stands around it.
"""

from streamlearn.drift.adwin import Adwin
from streamlearn.drift.channels import Watched
from streamlearn.drift.detectors import DETECTORS, OnAnswers
from streamlearn.drift.features import Features
from streamlearn.drift.inputs import Inputs
from streamlearn.drift.kswin import Kswin
from streamlearn.drift.moved import SIGNALS, Mark, Moved
from streamlearn.drift.page_hinkley import PageHinkley
from streamlearn.drift.patient import PatientDetector
from streamlearn.drift.reactions import ReactionKeys, Reactions
from streamlearn.drift.watching import Drift

__all__ = [
    "DETECTORS",
    "SIGNALS",
    "Adwin",
    "Drift",
    "Features",
    "Inputs",
    "Kswin",
    "Mark",
    "Moved",
    "OnAnswers",
    "PageHinkley",
    "PatientDetector",
    "ReactionKeys",
    "Reactions",
    "Watched",
]
