"""Learning again what was learned before, to the same bytes: nothing of it is served, kept or told to anybody.

`rebuilt` is the state directory's past: the state of any position since the oldest kept checkpoint, from the records that the
source still holds and the decisions in the journal. It reads beside a running daemon, and changes nothing.
"""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from streamlearn import assemble
from streamlearn.checkpoint import FIRST, Checkpoint, Checkpoints
from streamlearn.config import Config
from streamlearn.daemon import IDLE_WAIT_S, from_checkpoint, from_the_first
from streamlearn.errors import ConfigError, SourceError
from streamlearn.identities import Identities
from streamlearn.journal import Entry
from streamlearn.prefetch import Prefetch
from streamlearn.prequential import Prequential
from streamlearn.reading import OTHER, shown
from streamlearn.records import Json, Label, Positions
from streamlearn.snapshot import Reference

SILENCE_S = 60.0  # without any record that is still to come


def private(config: Config) -> Config:
    """The same, but what a repetition writes stays with it: no letter and no answer goes where those of the run went."""
    letters = config.dead_letters.model_copy(update={"sink": None})
    return config.model_copy(update={"dead_letters": letters, "predictions": None})


def facts(loop: Prequential, seconds: float) -> dict[str, Json]:
    """What is printed of a repetition that took so long."""
    kept, labels = loop.checkpoint(), loop.admission.labels.by_row
    scored = {_named(name, labels): value for name, value in loop.metrics.values().items()}
    return {
        "records": loop.read,
        "outcomes": loop.outcomes(),
        "pending": len(loop.chunks),
        "records_per_second": loop.read / seconds,
        **scored,
        **({f"probe_{name}": value for name, value in loop.probe.values().items()} if loop.probe.taken else {}),
        "drift": dict(loop.drift.counts),
        "number": kept.number,
        "positions": dict(kept.positions),
        "model_digest": kept.model_digest,
        "state_digest": kept.state_digest,
    }


def _named(metric: str, labels: Sequence[Label]) -> str:
    """A figure of a label row is called by the label."""
    name, _, row = metric.partition("/")
    return metric if row in ("", OTHER) else f"{name}/{shown(labels[int(row)], int(row))}"


def rebuilt(config: Config, place: str, *, to: Path | None = None) -> dict[str, Json]:
    """`streamlearn replay --until PLACE`: the state right after the last record before `orders[3]@88112`.

    With `to`, it is the one checkpoint of that new directory.
    Errors  ConfigError when no kept checkpoint, no record or no decision reaches there; SourceError when the source no longer
            holds what is needed; CheckpointError for damage.
    """
    partition, position = _place(place)
    if to is not None and to.exists():
        raise ConfigError(f"--to {to} is there already: expected the name of a new directory")
    with tempfile.TemporaryDirectory(prefix="streamlearn-replay-") as folder:
        loop = assemble.prequential(private(config), state_dir=Path(folder), publisher=Reference())
        try:
            begin(loop, config.state_dir, partition, position)
            began = time.perf_counter()
            follow(loop, _reading(config, loop))
            if to is not None:
                kept = Checkpoints(to / "checkpoints")
                kept.save(kept.next_name(), loop.checkpoint(), created_ms=assemble.now_ms())
            return facts(loop, time.perf_counter() - began)
        finally:
            loop.writer.close()
            loop.journal.close()
            loop.close()


def _place(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+\[\d+\])@(\d+)", text)
    if match is None:
        raise ConfigError(f"--until '{text}' names no position: expected one like 'orders[3]@88112'")
    return match[1], int(match[2])


def begin(loop: Prequential, state_dir: Path, partition: str, position: int) -> None:
    """Be what the newest kept checkpoint before the position was, with the decisions that led from there to it."""
    checkpoint = _before(Checkpoints(state_dir / "checkpoints"), partition, position)
    for segment in sorted((state_dir / "journal").glob("*.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # a running daemon has cut it: no kept checkpoint needs it
            shutil.copy(segment, loop.journal.folder)
    if checkpoint is not None:
        from_checkpoint(loop, checkpoint)
    elif (loop.journal.folder / f"{FIRST}.jsonl").exists():
        from_the_first(loop)
    else:
        raise ConfigError(_too_early(state_dir, partition, position))
    if loop.admission.positions.get(partition, 0) > position:
        raise ConfigError(_too_early(state_dir, partition, position))
    script = loop.journal.script
    decided = _decided_until(list(script), loop.admission.positions, partition, position)
    script.clear()
    script.extend(decided)


def _too_early(state_dir: Path, partition: str, position: int) -> str:
    oldest = f"the oldest checkpoint that is kept in {state_dir}, or before reading began"
    return f"{partition}@{position} is before {oldest}: expected a later position"


def _before(store: Checkpoints, partition: str, position: int) -> Checkpoint | None:
    """With several partitions, one that stands at the position may have read others since; so it has to stand before it.

    What a drift kept of the time before the oldest regular one has no journal any more.
    """
    oldest = min(store.regular(), default="")
    for name in reversed([name for name in store.names() if name >= oldest]):
        checkpoint, _ = store.read(name)
        if checkpoint.positions.get(partition, 0) + (len(checkpoint.positions) > 1) <= position:
            return checkpoint
    return None


def _decided_until(script: list[Entry], positions: Positions, partition: str, position: int) -> list[Entry]:
    """The decisions up to the position and no further."""
    known = {*positions, *(entry["partition"] for entry in script if entry["kind"] == "order")}
    if known and partition not in known:
        raise ConfigError(f"{partition} is not read: expected one of {', '.join(sorted(known))}")
    if positions.get(partition, 0) == position:
        return []
    last: Entry = {"kind": "order", "partition": partition, "until": position}
    for at, entry in enumerate(script):
        if entry["kind"] in ("expire", "split", "aside"):
            continue
        if entry["kind"] != "order":
            raise ConfigError(f"a {entry['kind']} lies before {partition}@{position}: expected an earlier position")
        if entry["partition"] == partition and entry["until"] >= position:
            return [*script[:at], last]
    if len(known) > 1:
        raise ConfigError(f"the journal ends before {partition}@{position}: which partition comes next is not decided yet")
    return [*script, last]


def follow(loop: Prequential, reading: Prefetch) -> None:
    """Take all decisions of the script. Errors: ConfigError, SourceError where a record that they are about does not come."""
    reading.start()
    came = time.monotonic()
    try:
        while (entry := loop.journal.scripted()) is not None:
            if entry["kind"] == "order":
                _check_held(reading, entry["partition"], entry["until"])
            if loop.turn(IDLE_WAIT_S).read:
                came = time.monotonic()
            elif loop.intake.drained or time.monotonic() - came > SILENCE_S:
                raise SourceError(f"the source gives no record before {entry['partition']}@{entry['until']} any more")
    finally:
        reading.stop(5.0)


def _check_held(reading: Prefetch, partition: str, position: int) -> None:
    ends = reading.upstream.ends
    if ends is not None and position > ends.get(partition, 0):
        raise ConfigError(f"{partition} ends at {ends.get(partition, 0)}: {partition}@{position} is not there yet")


def _reading(config: Config, loop: Prequential) -> Prefetch:
    """Reads the daemon's source, but passes nothing over, does not wait for ever, and remembers nothing."""
    given = config.model_copy(update={"source": config.source.model_copy(update={"give_up_s": SILENCE_S})})
    return assemble.prefetch(
        given,
        loop.intake,
        dict(loop.admission.positions),
        open_source=assemble.source(_without_gaps(config), pass_gaps=False),
        recognise=Identities(config.state_dir / "source.json").check,
    )


def _without_gaps(config: Config) -> Config:
    """What retention has removed cannot be learned again, whatever the daemon is told to do about it."""
    read = {"source": config.source, "label_source": config.label_source}
    found = {name: keys for name, keys in read.items() if keys is not None and "on_gap" in keys.rest}
    return config.model_copy(update={name: keys.model_copy(update={"on_gap": "stop"}) for name, keys in found.items()})
