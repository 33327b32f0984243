"""A stream and a configuration that are small and quick: six features, four labels, a network of twelve units."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import connectors
from streamlearn.records import Message

SHAPE = (6,)
CHUNK = 10


def sample(draw: random.Random) -> bytes:
    """A record that can be learned, and something in it that can be learnt."""
    x = [draw.gauss(0, 1) for _ in range(SHAPE[0])]
    return json.dumps({"features": [round(v, 4) for v in x], "label": f"{int(x[0] > 0)}{int(x[1] > x[2])}"}).encode()


def samples(n: int, seed: int = 0) -> list[bytes]:
    """n of them."""
    draw = random.Random(seed)
    return [sample(draw) for _ in range(n)]


def append(path: Path, values: Sequence[bytes]) -> None:
    """Records at the end of an embedded log, there when this returns."""
    sink = connectors.open_sink("log", {"path": str(path)})
    sink.write([Message(value) for value in values])
    sink.close()


def keys(state: Path, reads: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Configuration of a daemon that serves nothing; `changes` are added section by section."""
    values: dict[str, Any] = {
        "state_dir": str(state),
        "source": dict(reads),
        "input": {"shape": list(SHAPE)},
        "model": {"name": "mlp", "hidden": [12]},
        "learner": {"name": "la-maml", "chunk": CHUNK, "glances": 1, "memory": {"rows": 50}},
        "publish": {"every_ms": 5, "folder": str(state.with_suffix(".live"))},
        "probe": {"share": 0.0},
        "serve": {"enabled": False},
        "telemetry": {"enabled": False},
    }
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change if isinstance(change, dict) else change
    return values


def configured(state: Path, reads: Mapping[str, Any], **changes: Any) -> Path:
    """The same as a file beside the state directory."""
    path = state.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(keys(state, reads, **changes)))
    return path


def on_log(folder: Path, n: int = 0, **changes: Any) -> tuple[Path, Path]:
    """A configuration that reads `folder/samples.sqlite`, which holds n samples, and its state directory."""
    append(folder / "samples.sqlite", samples(n))
    state = folder / "state"
    return configured(state, {"type": "log", "path": str(folder / "samples.sqlite")}, **changes), state


def settled(state: Path) -> int:
    """Records that have an outcome or wait for one, as told about once a second."""
    try:
        status = json.loads((state / "status.json").read_bytes())
    except FileNotFoundError:
        return 0
    return int(sum(status["outcomes"].values()) + status["pending"] + sum(status["waiting"].values()))
