"""What administrators ask of a running daemon: files in its state directory, put there by servers, read by the learner.

What nobody waits for any more is removed at the next start, so nothing is obeyed late.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from streamlearn.checkpoint import Checkpoint, Checkpoints, Written
from streamlearn.control_files import ANSWER, REQUEST, put
from streamlearn.disk import make_folder
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.prequential import Prequential
from streamlearn.records import Json
from streamlearn.rollback import Resume, renumbered

log = structlog.get_logger()


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """To say what could be served (`index`), or to serve what an older checkpoint holds (`load`)."""

    kind: Literal["index", "load"]
    number: int = 0
    resume: Resume = "replay"


class Requests:
    """The folder of requests, as the daemon sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Forget what an earlier life was asked. Errors: CheckpointError when the folder cannot be made."""
        make_folder(self._folder)
        for left in self._folder.glob("*.json"):
            left.unlink(missing_ok=True)

    def next(self) -> tuple[str, Request] | None:
        """The name of a request, and what it wants; one that cannot be read is answered at once."""
        for path in sorted(self._folder.glob(f"[!.]*{REQUEST}")):
            name = path.name.removesuffix(REQUEST)
            try:
                request = msgspec.json.decode(path.read_bytes(), type=Request)
            except FileNotFoundError:  # whoever asked waits no more
                continue
            except msgspec.MsgspecError as error:
                self.answer(name, {"error": str(error), "status": 400})
                continue
            return name, request
        return None

    def answer(self, name: str, values: Mapping[str, Json]) -> None:
        """Whoever asked may read it, once."""
        put(self._folder / f"{name}{ANSWER}", values)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{name}{REQUEST}").unlink()


def kept(store: Checkpoints, number: int) -> Checkpoint:
    """The newest checkpoint of that number. Errors: ConfigError with the numbers that are kept."""
    found = {name: store.number(name) for name in reversed(store.names())}
    for name, each in found.items():
        if each == number:
            return store.read(name)[0]
    numbers = ", ".join(map(str, sorted(set(found.values())))) or "none"
    raise ConfigError(f"no checkpoint of number {number} is kept: found numbers {numbers}")


def go_back(loop: Prequential, old: Checkpoint, resume: Resume, *, now_ms: int) -> Written:
    """Be what `old` was, under a number never used; durable when this returns. What was read ahead has to be dropped before.

    Errors  CheckpointError, and then nothing has changed.
    """
    if loop.journal.script:
        raise CheckpointError("what was learned before the last start is still being learned again: ask once that is done")
    loop.writer.wait()
    name = loop.writer.next_name(after=loop.journal.newest)
    reached = dict(loop.admission.positions) if resume == "now" else {}
    went = renumbered(old, loop.tally.number + 1, reached)
    loop.journal.begin(name)
    loop.journal.write("rollback", to=old.number, number=went.number, resume=resume)
    loop.journal.flush()
    place = {**loop.journal.place(), "taken": 1}  # this decision has taken effect
    went = replace(went, journal=place)
    written = loop.writer.store.save(name, went, created_ms=now_ms, is_owner=loop.writer.is_owner)
    loop.restore(went)
    loop.journal.resume(**went.journal)
    loop.writer.last = written
    log.warning("daemon.rolled_back", to=old.number, number=went.number, resume=resume, positions=dict(went.positions))
    return written
