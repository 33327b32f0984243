"""What a state directory holds, for people and scripts. Reads only; works beside a running daemon."""

from collections.abc import Mapping
from pathlib import Path

from streamlearn.checkpoint import Checkpoints
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.records import Json, State


def inspected(state_dir: Path, name: str = "") -> dict[str, Json]:
    """The checkpoint called `name`, or the newest, as facts. Errors: ConfigError without one, CheckpointError when damaged."""
    store = Checkpoints(state_dir / "checkpoints")
    names = store.names()
    if not names:
        raise ConfigError(f"{state_dir} holds no checkpoint: expected the state_dir of a daemon that has run")
    if name and name not in names:
        raise ConfigError(f"{state_dir} holds no checkpoint {name}: it holds {', '.join(names)}")
    checkpoint, written = store.read(name or names[-1])
    if checkpoint.model_digest != written.model_digest:
        raise CheckpointError(f"checkpoint {written.name}: its model has not the digest that its manifest names")
    values, arrays = checkpoint.state.values, checkpoint.state.arrays
    return {
        "checkpoint": written.name,
        "kept": names,
        "number": written.number,
        "created_ms": written.created_ms,
        "size_bytes": written.size_bytes,
        "positions": dict(written.positions),
        "journal": dict(checkpoint.journal),
        "labels": values["labels"]["labels"],
        "counts": dict(values["tally"]) | {"skipped": values["admission"]["skipped"]},
        "rejected": values["admission"]["rejected"],
        "pending": len(arrays["chunks/labels"]),
        "probe": _probe(checkpoint.state.under("probe")),
        "waiting": _waiting(checkpoint.state.under("pending")),
        "arrays": len(arrays),
        "part_bytes": _part_bytes({key: array.nbytes for key, array in arrays.items()}),
        "model_digest": written.model_digest,
        "state_digest": written.state_digest,
    }


def _probe(probe: State) -> dict[str, Json]:
    """Records that were kept from the learner, and how many of them are held."""
    if "taken" not in probe.values:
        return {}
    return {"taken": probe.values["taken"], "held": len(probe.arrays["places"]), "eras": probe.values["eras"]}


def _waiting(pending: State) -> dict[str, Json]:
    """Samples without label, labels without sample, ids that were joined; and what became of those that waited."""
    if "own" not in pending.values:  # of a program before there were late labels
        return {}
    tables = {"label": "samples/ids", "sample": "own/early_ids", "joined_ids": "own/joined"}
    return {name: len(pending.arrays[table]) for name, table in tables.items()} | dict(pending.values["own"]["counts"])


def _part_bytes(sizes: Mapping[str, int]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for key, size_bytes in sizes.items():
        part = key.split("/")[0]
        parts[part] = parts.get(part, 0) + size_bytes
    return parts
