"""Pure functions (arrays, settings, inputs) → logits, by name. All that servers know about models."""

import importlib
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from streamlearn.errors import SnapshotError
from streamlearn.records import About, Array, Json
from streamlearn.serving.forms import mlp

Form: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Json], Array], Array]
"""Logits float32 [n, C] for raw inputs float32 [n, *shape], −inf for labels that were not learned."""

Taken: TypeAlias = Callable[[Array, About], Array]
"""A form with its arrays and settings taken in: logits for inputs, and what the question is about."""

FORMS: dict[str, str] = {
    "mlp": "streamlearn.serving.forms.mlp",
    "nearest_mean": "streamlearn.serving.forms.nearest_mean",
    "pool": "streamlearn.serving.forms.pool",
    "torch": "streamlearn.serving.forms.torch",
}


def form_named(name: str) -> Form:
    """The form, imported now. Errors: SnapshotError when this program has none of that name."""
    if name not in FORMS:
        raise SnapshotError(f"snapshot asks for the form {name!r}: expected one of {', '.join(sorted(FORMS))}")
    return cast(Form, importlib.import_module(FORMS[name]).logits)


def taken_in(form: Form, arrays: Mapping[str, Array], settings: Mapping[str, Json]) -> Taken:
    """What is the same for every question done once, where the form can; within rounding it answers the same."""
    ready = mlp.taken_in(arrays, settings) if form is mlp.logits else None
    return ready or (lambda x, about: form(arrays, {**settings, "about": about}, x))
