"""Going back to an older checkpoint, on purpose: `streamlearn rollback DIR NUMBER`, while no daemon runs on the directory.

The model of that number is what is served and learned on from the next start. Its state gets a new number above every one that
was ever used, so that no number ever names two states (P4); what had been learned since is learned again from its own
positions (`replay`), or left out and counted as skipped (`now`). The decision is the first entry of a new journal segment.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from streamlearn.checkpoint import Checkpoint, Checkpoints, Written
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.journal import Journal
from streamlearn.ownership import Ownership
from streamlearn.records import Json, Positions, State

Resume: TypeAlias = Literal["replay", "now"]


def rolled_back(state_dir: Path, number: int, resume: Resume) -> dict[str, Json]:
    """What `streamlearn rollback` prints. Errors: those of `roll_back`."""
    written = roll_back(state_dir, number, resume=resume, now_ms=time.time_ns() // 1_000_000)
    return {
        "checkpoint": written.name,
        "number": written.number,
        "model_of": number,
        "positions": dict(written.positions),
        "model_digest": written.model_digest,
    }


def roll_back(state_dir: Path, number: int, *, resume: Resume, now_ms: int) -> Written:
    """Make the checkpoint of `number` the newest, under a new number. `keep` is not applied: nothing is removed.

    Errors  ConfigError when no kept checkpoint has that number; CheckpointError when the directory is locked or damaged.
    """
    lock = Ownership(state_dir)
    try:
        return _roll_back(Checkpoints(state_dir / "checkpoints", keep=1 << 30), state_dir, number, resume, now_ms)
    finally:
        lock.release()


def _roll_back(store: Checkpoints, state_dir: Path, number: int, resume: Resume, now_ms: int) -> Written:
    kept = {name: store.read(name) for name in store.names()}
    if not kept:
        raise ConfigError(f"{state_dir} holds no checkpoint: expected the state_dir of a daemon that has run")
    chosen = [checkpoint for checkpoint, _ in kept.values() if checkpoint.number == number]
    if not chosen:
        numbers = ", ".join(str(checkpoint.number) for checkpoint, _ in kept.values())
        raise ConfigError(f"no checkpoint of number {number} is kept in {state_dir}: found numbers {numbers}")
    newest = list(kept.values())[-1][0]
    journal = Journal(state_dir / "journal")
    try:
        journal.resume(**newest.journal)
        highest, reached = _reached(state_dir, newest, journal)
        name = store.next_name(after=journal.newest)
        journal.script.clear()  # decisions of the history that is given up
        journal.begin(name)
        went = renumbered(chosen[-1], highest + 1, reached if resume == "now" else {})
        journal.write("rollback", to=number, number=went.number, resume=resume)
        place = {**journal.place(), "taken": 1}  # this decision has taken effect
        return store.save(name, replace(went, journal=place), created_ms=now_ms)
    finally:
        journal.close()


def _reached(state_dir: Path, newest: Checkpoint, journal: Journal) -> tuple[int, Positions]:
    """A bound on every number ever used, and where reading had got to: what the journal says followed the newest checkpoint."""
    positions = dict(newest.positions)
    number = newest.number
    for entry in journal.script:
        if entry["kind"] == "order":
            number += max(0, entry["until"] - positions.get(entry["partition"], 0))  # a record is one chunk at most
            positions[entry["partition"]] = max(positions.get(entry["partition"], 0), entry["until"])
    return max(number, _served_number(state_dir / "status.json")), positions


def _served_number(status: Path) -> int:
    try:
        shown: Mapping[str, int] = msgspec.json.decode(status.read_bytes())["snapshot"] or {}
        return shown.get("number", 0)
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return 0


def renumbered(old: Checkpoint, number: int, reached: Positions) -> Checkpoint:
    """The old state under a new number, reading on from `reached` where that is further than its own positions."""
    values = {name: dict(part) for name, part in old.state.values.items()}
    positions = dict(old.positions)
    skipped = 0
    for partition, position in reached.items():
        skipped += max(0, position - positions.get(partition, 0))
        positions[partition] = max(position, positions.get(partition, 0))
    if "tally" not in values or "admission" not in values:
        raise CheckpointError(f"the checkpoint of number {old.number} holds no counts: it was written by another program")
    values["tally"]["number"] = number
    values["admission"]["positions"] = [list(item) for item in positions.items()]
    values["admission"]["skipped"] += skipped
    return Checkpoint(number, State(old.state.arrays, values), positions, old.journal)
