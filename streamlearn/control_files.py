"""Files by which servers ask the learner, and it answers: `NAME.request.json` in a folder, `NAME.answer.json` beside it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from streamlearn.disk import replace_file
from streamlearn.records import Json

REQUEST, ANSWER = ".request.json", ".answer.json"


def put(path: Path, values: Mapping[str, Json]) -> None:
    """There, whole, when this returns; nothing is left of it otherwise. Errors: OSError."""
    replace_file(path, msgspec.json.encode(values))
