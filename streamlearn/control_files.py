"""Files by which servers ask the learner, and it answers: `NAME.request.json` in one folder, and `NAME.answer.json` beside it.

Each is renamed into place, so that nobody reads a part of it.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from streamlearn.records import Json

REQUEST, ANSWER = ".request.json", ".answer.json"


def put(path: Path, values: Mapping[str, Json]) -> None:
    """There, whole, when this returns; nothing is left of it otherwise. Errors: OSError."""
    beside = path.with_name(f".{path.name}")
    try:
        beside.write_bytes(msgspec.json.encode(values))
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
