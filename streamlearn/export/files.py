"""One snapshot → a file, a torch.export program (`.pt2`) or an ONNX model (`.onnx`), held to what servers answer.

What is written is read by torch or an ONNX runtime, never by this program. A `.pt2` may hold pickles, as all of torch's
files may: whoever loads one trusts whoever wrote it. An ONNX file holds none.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from streamlearn import __version__
from streamlearn.errors import ConfigError
from streamlearn.export.networks import NearestMean, Network, Perceptron
from streamlearn.export.pool import Pool
from streamlearn.records import About, Array, Json, Snapshot
from streamlearn.serving.forms import form_named

FORMS: Mapping[str, Callable[..., nn.Module]] = {
    "mlp": Perceptron,
    "nearest_mean": NearestMean,
    "torch": Network,
    "pool": Pool,
}
METADATA = "streamlearn.json"
TOLERANCE = 1e-5
OUTPUTS = ("logits", "probabilities")
ROWS = 64  # of the inputs that it is tried on


class Exported(nn.Module):
    """logits [n, C] and probabilities [n, C]; C is the number of labels, −inf and 0 for those that were not learned."""

    def __init__(self, form: nn.Module, active: Array, labels: int) -> None:
        super().__init__()
        self.form, self.labels = form, labels
        self.register_buffer("active", torch.tensor(np.array(active)) > 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.where(self.get_buffer("active"), self.form(x), -torch.inf)[:, : self.labels]
        return logits.float(), torch.softmax(logits, dim=1).float()


def exported(snapshot: Snapshot, path: Path, *, about: str = "auto", module: str = "") -> dict[str, Json]:
    """Write `path`, in the format of its suffix, and return what was written.

    Errors  ConfigError for a suffix, a form, or a model that cannot be exported, naming what can.
    """
    write = WRITERS.get(path.suffix)
    if write is None:
        raise ConfigError(f"--to {path}: the suffix is {path.suffix!r}, expected one of {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--to {path}: there is no folder {path.parent}")
    if about not in get_args(About):
        raise ConfigError(f"--about is {about!r}: expected one of {', '.join(get_args(About))}")
    made = as_module(snapshot, about=about, module=module)
    difference = _difference(made, snapshot, about, module)
    facts = metadata(snapshot, about)
    try:
        write(made, torch.tensor(examples(snapshot, ROWS, seed=1)), path, facts)
    except OSError as error:
        raise ConfigError(f"--to {path} cannot be written: {error}") from error
    return facts | {"file": str(path), "size_bytes": path.stat().st_size, "largest_difference": difference}


def as_module(snapshot: Snapshot, *, about: str, module: str = "") -> Exported:
    """The same answers as a module. Errors: ConfigError."""
    form, arrays = snapshot.answering.form, snapshot.answering.arrays
    kind = FORMS.get(form)
    if kind is None:
        raise ConfigError(f"a model of the form {form!r} cannot be exported: expected one of {', '.join(FORMS)}")
    if not (arrays["active"] > 0).any():
        raise ConfigError("no label is learned yet: expected a model that answers")
    if form == "torch":
        kind = partial(kind, module=module)
    made = kind(arrays, {**snapshot.answering.settings, "about": about})
    return Exported(made, arrays["active"], len(snapshot.labels)).eval().requires_grad_(requires_grad=False)


def metadata(snapshot: Snapshot, about: str) -> dict[str, Json]:
    """What stands in the file beside the model."""
    columns = None if snapshot.schema is None else [column._asdict() for column in snapshot.schema.columns]
    return {
        "made_by": f"streamlearn {__version__}",
        "model_version": snapshot.number,
        "labels": list(snapshot.labels),
        "input": {"name": "features", "datatype": "FP32", "shape": [-1, *snapshot.shape], "columns": columns},
        "outputs": list(OUTPUTS),
        "form": snapshot.answering.form,
        "about": about,
        "published_ms": snapshot.published_ms,
    }


def examples(snapshot: Snapshot, rows: int, *, seed: int) -> Array:
    """float32 [rows, *shape]: inputs of all kinds, also missing and far ones, for the model to be tried on."""
    random = np.random.default_rng(seed)
    sizes = 10.0 ** random.integers(-1, 3, (rows, *[1] * len(snapshot.shape)))
    x: Array = random.normal(size=(rows, *snapshot.shape)) * sizes
    for j, column in enumerate(() if snapshot.schema is None else snapshot.schema.columns):
        if column.kind == "categorical":
            x[:, j] = random.integers(0, column.buckets, rows)
        if column.missing:
            x[random.random(rows) < 0.2, j] = np.nan
    return x.astype(np.float32)


def _difference(made: Exported, snapshot: Snapshot, about: str, module: str) -> float:
    """The largest between its probabilities and those that are served. Errors: ConfigError above 1e-5."""
    x, form = examples(snapshot, ROWS, seed=2), cast(Callable[..., Array], form_named(snapshot.answering.form))
    form = partial(form, module=module) if snapshot.answering.form == "torch" else form
    served = form(snapshot.answering.arrays, {**snapshot.answering.settings, "about": about}, x)[:, : len(snapshot.labels)]
    expected = torch.softmax(torch.tensor(served), dim=1)
    with torch.no_grad():
        difference = float((made(torch.tensor(x))[1] - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"the model cannot be exported: its probabilities would differ by {difference:.1e}, expected 1e-5 at most"
        )
    return difference


def _program(made: Exported, x: Tensor) -> Any:
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    try:
        return torch.export.export(made, (x,), dynamic_shapes=({0: rows},), strict=False)
    except Exception as error:  # torch's own, of many kinds, for code that it cannot follow
        raise ConfigError(f"torch.export cannot follow the model: {str(error)[:500]}") from error


def _write_pt2(made: Exported, x: Tensor, path: Path, facts: Json) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about empty tensors
        torch.export.save(_program(made, x), path, extra_files={METADATA: json.dumps(facts)})


def _write_onnx(made: Exported, x: Tensor, path: Path, facts: Json) -> None:
    if importlib.util.find_spec("onnxscript") is None:
        raise ConfigError(f"--to {path}: onnxscript is not installed: pip install 'streamlearn[onnx]'")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it says which packages it would like to have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and onnxscript, about themselves
        program = torch.onnx.export(
            _program(made, x), dynamo=True, input_names=["features"], output_names=list(OUTPUTS), verbose=False
        )
    if program is None:
        raise ConfigError("torch gave no ONNX program for the model")
    program.model.metadata_props[METADATA] = json.dumps(facts)
    program.save(path)


WRITERS: Mapping[str, Callable[[Exported, Tensor, Path, Json], None]] = {".pt2": _write_pt2, ".onnx": _write_onnx}
