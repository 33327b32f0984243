"""What each command does, over the parts that `assemble` makes."""

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import typer
import yaml

import connectors
from connectors import recorded
from streamlearn import assemble, configured_learner, letters, logs
from streamlearn.checkpoint import FIRST
from streamlearn.config import Config, LogKeys, configure
from streamlearn.configured_servers import kafka_connection, samples_sink, service
from streamlearn.daemon import Service, from_the_first
from streamlearn.demo import SHAPE, Feeder
from streamlearn.errors import ConfigError, DecodeError, SourceError
from streamlearn.prefetch import Prefetch
from streamlearn.prequential import Prequential
from streamlearn.protocols import Decoder, Sink, Source
from streamlearn.records import Json, Record
from streamlearn.repetition import facts, private, rebuilt
from streamlearn.schema import Column
from streamlearn.snapshot import Reference


def run(config: Config, *, extra: Sequence[Service] = (), take_over: bool = False) -> None:
    """`streamlearn run`: until a signal or the end of the source."""
    write_logs(config.log)
    process = assemble.daemon(config, extra=extra)
    process.take_signals()
    process.run(take_over=take_over)


def write_logs(keys: LogKeys) -> None:
    """One line an event on standard error, as JSON or as text."""
    logs.configure(keys.level, keys.format)


def demo_values(state_dir: Path, *, port: int, metrics_port: int) -> dict[str, Json]:
    """The demo's configuration: what it differs in from the defaults."""
    return {
        "name": "digits",
        "state_dir": str(state_dir),
        "source": {"type": "log", "path": str(state_dir / "samples.sqlite"), "name": "samples"},
        "input": {"shape": list(SHAPE)},
        "learner": {"name": "la-maml", "memory": {"rows": 500}},
        "model": {"name": "mlp", "hidden": [100, 100]},
        "probe": {"share": 0.05},
        "serve": {"processes": 0, "port": port, "grpc_port": None},
        "telemetry": {"port": metrics_port},
        "log": {"format": "text"},
    }


def demo_yaml(state_dir: Path, port: int, metrics_port: int) -> str:
    """The demo's configuration as a file for `streamlearn run`."""
    return yaml.safe_dump(demo_values(state_dir, port=port, metrics_port=metrics_port), sort_keys=False)


def demo(state_dir: Path, *, port: int, metrics_port: int, rate: float) -> None:
    """`streamlearn demo`: the daemon on an embedded log that a feeder fills at a steady pace."""
    config = configure(demo_values(state_dir, port=port, metrics_port=metrics_port))
    path = str(config.source.rest["path"])

    def open_log() -> tuple[Sink, int]:
        source = connectors.open_source("log", {"path": path, "name": "samples", "start": "latest"})
        source.seek({})
        written = source.positions()["samples[0]"]
        source.close()
        return connectors.open_sink("log", {"path": path, "max_records": 200_000}), written

    sys.stderr.write(
        f"The page: http://127.0.0.1:{port}/   metrics: http://127.0.0.1:{metrics_port}/metrics   Ctrl-C ends it\n"
    )
    run(config, extra=[Feeder(open_log, per_s=rate, seed=config.seed)])


def check(config: Config, *, timeout_s: float = 10.0) -> dict[str, Json]:
    """`streamlearn check`: what would run, after one record was read and decoded. Errors: ConfigError, SourceError."""
    made, decode = configured_learner.learner(config), assemble.decoder(config)
    service(config)
    record = _first_record(config, timeout_s)
    return {
        "model": config.name,
        "learner": f"{configured_learner.learner_name(config)}, chunk of {made.chunk}",
        "network": config.model.name,
        "input": f"{config.decode.format} {_input(config)}",
        "source": config.source.type,
        "record": "none within the time-out: the source is empty" if record is None else _decoded(record, decode, config),
        "state": str(config.state_dir),
        "serve": "off" if not config.serve.enabled else f"{config.serve.processes or 'in this'} process",
    }


def _input(config: Config) -> str:
    schema = config.input.named
    if schema is None:
        return str(list(config.input.shape))
    return ", ".join(_column(column) for column in schema.columns) + f"; other fields: {schema.unknown}"


def _column(column: Column) -> str:
    kind = column.kind + (f" of {column.buckets} buckets" if column.buckets else "")
    return f"{column.name}: {kind}" + ("" if column.missing else ", never missing")


def _first_record(config: Config, timeout_s: float) -> Record | None:
    deadline = time.monotonic() + timeout_s
    while True:
        source = connectors.open_source(config.source.type, config.source.rest)
        try:
            source.seek({})
            while time.monotonic() < deadline and not source.exhausted():
                if records := source.poll(1, 0.5):
                    return records[0]
            return None
        except SourceError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        finally:
            source.close()


def _decoded(record: Record, decode: Decoder, config: Config) -> str:
    try:
        sample = decode.decode(record, np.zeros(config.input.row, np.float32))
    except DecodeError as error:
        where = "input.columns" if config.input.columns else "input.shape"
        raise ConfigError(f"the first record cannot be decoded: {error}; check decode.format and {where}") from error
    return f"{record.place}: label {sample.label!r}"


def replay(config: Config, path: Path, *, journal: Path | None, progress: bool) -> dict[str, Json]:
    """`streamlearn replay`: the same loop over a recorded stream, following `journal` where one is given.

    Errors  ConfigError when recording or journal are missing or do not match; SourceError; CheckpointError, a damaged journal.
    """
    write_logs(config.log)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="streamlearn-replay-") as folder:
        loop = assemble.prequential(private(config), state_dir=Path(folder), publisher=Reference())
        began = time.perf_counter()
        try:
            files = recorded.partitions(path, _follow(loop, journal))
            reading = _reading(config, files, loop)
            reading.start()
            try:
                _drain(loop, reading, progress=progress)
            finally:
                reading.stop(5.0)
        finally:
            loop.writer.close()
            loop.journal.close()
            loop.close()
        return facts(loop, time.perf_counter() - began)


def replay_until(config: Config, place: str, *, to: Path | None) -> dict[str, Json]:
    """`streamlearn replay --until`. Errors: those of `rebuilt`."""
    write_logs(config.log)
    torch.set_num_threads(1)
    return rebuilt(config, place, to=to)


def _follow(loop: Prequential, folder: Path | None) -> set[str]:
    """Make the decisions of the run whose journal lies in `folder` those of this one; the partitions they are about."""
    if folder is not None:
        segments = sorted(folder.glob("*.jsonl"))
        if not segments or segments[0].stem != FIRST:
            found = f"it begins with {segments[0].name}" if segments else "no journal is there"
            raise ConfigError(
                f"--journal {folder} cannot be followed from the first record: {found}, expected {FIRST}.jsonl, which is kept"
                " while checkpoint.keep is above the number of checkpoints; for one partition no journal is needed"
            )
        for segment in segments:
            shutil.copy(segment, loop.journal.folder)
    from_the_first(loop)
    return {entry["partition"] for entry in loop.journal.script if entry["kind"] == "order"}


def _reading(config: Config, files: Mapping[str, Path], loop: Prequential) -> Prefetch:
    """Reads `files` instead of the source. Columns of a configured `file` source are kept."""
    keys = config.source.rest if config.source.type == "file" else {}
    first = {name: loop.admission.positions.get(name, 0) for name in files}

    def opened() -> Source:
        each = {
            name: connectors.open_source("file", {**keys, "path": str(path), "follow": False}) for name, path in files.items()
        }
        return recorded.RecordedSource(each, first)

    arrays = all(path.suffix == ".npz" for path in files.values())
    decode = config.decode.model_copy(update={"format": "tensor"} if arrays else {})
    return assemble.prefetch(config.model_copy(update={"decode": decode}), loop.intake, {}, open_source=opened)


def _drain(loop: Prequential, reading: Prefetch, *, progress: bool) -> None:
    with typer.progressbar(length=1, file=sys.stderr, hidden=not progress, label="replay") as bar:
        while not loop.intake.drained:
            turn = loop.turn(0.5)
            bar.length = max(1, sum((reading.upstream.ends or {}).values()))
            bar.update(turn.read)


def dead_letters(config: Config) -> list[dict[str, Json]]:
    """`streamlearn dlq list`. Errors: ConfigError."""
    return [letter.facts() for letter in letters.letters(_letter_source(config))]


def dead_letter(config: Config, place: str) -> dict[str, Json]:
    """`streamlearn dlq show`. Errors: ConfigError for a place without a letter."""
    found = next((letter for letter in letters.letters(_letter_source(config)) if letter.place == place), None)
    if found is None:
        raise ConfigError(f"no dead letter came from {place}: `streamlearn dlq list` shows the places")
    return found.facts()


def replay_letters(config: Config, places: list[str], value: Path | None) -> list[str]:
    """`streamlearn dlq replay`. Errors: ConfigError; SinkError when the source does not take them."""
    target = samples_sink(config)
    if target is None:
        raise ConfigError(f"source.type '{config.source.type}' cannot be written to: expected log or kafka")
    mended = None if value is None else value.read_bytes()
    sink = connectors.open_sink(target.name, target.settings, path="source")
    return letters.send_again(_letter_source(config), sink, places=places, mended=mended)


def _letter_source(config: Config) -> Source:
    """Reads what the sink of dead letters wrote."""
    keys = config.dead_letters.sink
    if keys is None:
        path = config.state_dir / "dead_letters.sqlite"
        if not path.exists():
            raise ConfigError(f"{path} is not there: no daemon has run on this state_dir")
        return connectors.open_source("log", {"path": str(path)})
    if keys.type == "kafka":
        return connectors.open_source("kafka", kafka_connection(keys.rest) | {"topics": [keys.rest["topic"]]})
    if keys.type == "log":
        return connectors.open_source("log", {"path": keys.rest["path"]})
    raise ConfigError(f"dead_letters.sink.type '{keys.type}' cannot be read again: expected log or kafka")
