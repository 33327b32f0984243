"""The repository extension: which checkpoints could be served, and the call that serves one of them.

The learner alone can do either, so a server asks it by a file in the state directory and waits for the answer beside it.

Source  kserve/open-inference-protocol and Triton's model repository extension. A version is the number of a kept checkpoint;
        what is served afterwards has a new number. We require the version, and add `resume`; nothing is ever unloaded.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from streamlearn.control_files import ANSWER, REQUEST, put
from streamlearn.records import Json
from streamlearn.serving.tensors import RequestError

TIMEOUT_S, LOOK_S = 30.0, 0.05


class Index(msgspec.Struct, forbid_unknown_fields=True):
    """What the index is asked for."""

    ready: bool = False


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[str, msgspec.Meta(pattern="^(0|[1-9][0-9]{0,17})$")]
    resume: Literal["replay", "now"] = "replay"


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    parameters: _Parameters


class Load(msgspec.Struct):
    """What is to be served, and where learning goes on."""

    number: int
    resume: str


def read_index(body: bytes) -> Index:
    """Errors: RequestError (400)."""
    try:
        return msgspec.json.decode(body or b"{}", type=Index)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is no question for the index: {error}; expected {{}} or {{ready: true}}") from error


def read_load(body: bytes) -> Load:
    """Errors: RequestError (400)."""
    try:
        found = msgspec.json.decode(body, type=_Load).parameters
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body names nothing to load: {error}; expected {{parameters: {{version, resume?}}}}") from error
    return Load(int(found.version), found.resume)


def index_of(name: str, served: int | None, kept: Sequence[int], *, ready_only: bool) -> Json:
    """As the extension has it: one entry for what is served, one for each checkpoint that could be."""
    entries = [] if served is None else [_entry(name, served, "READY", "")]
    others = [number for number in kept if number != served and not ready_only]
    return entries + [_entry(name, number, "UNAVAILABLE", "kept as a checkpoint: load it by its version") for number in others]


def _entry(name: str, number: int, state: str, reason: str) -> Json:
    return {"name": name, "version": str(number), "state": state, "reason": reason}


class Repository:
    """Asks the learner."""

    def __init__(self, folder: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._folder, self._timeout_s = folder, timeout_s

    async def ask(self, question: dict[str, Json]) -> dict[str, Json]:
        """Its answer. Errors: RequestError, 503 when none comes in time; then the question is taken back."""
        name = secrets.token_hex(8)
        asked, answered = self._folder / (name + REQUEST), self._folder / (name + ANSWER)
        try:
            put(asked, question)
            async with asyncio.timeout(self._timeout_s):
                while not answered.exists():
                    await asyncio.sleep(LOOK_S)
            answer: dict[str, Json] = msgspec.json.decode(answered.read_bytes())
        except TimeoutError as error:
            raise RequestError(f"the learner did not answer within {self._timeout_s:g} s", status=503) from error
        except OSError as error:
            raise RequestError(f"the learner cannot be asked: {error.strerror}", status=503) from error
        finally:
            for path in (asked, answered):
                with contextlib.suppress(OSError):
                    path.unlink()
        if "error" in answer:
            raise RequestError(str(answer["error"]), status=int(answer["status"]))
        return answer
