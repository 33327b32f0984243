"""Config → the loop, what it reads, and a ready daemon. Only here all parts meet; elsewhere they know protocols.

`configured_learner` makes the learner, `configured_servers` those who answer.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

import connectors
from connectors.together import Beside, TogetherSource
from streamlearn import __version__, configured_learner, configured_servers
from streamlearn.admit import Admission, DeadLetters
from streamlearn.answers import AnswerLog, AnswersTo, NoAnswerLog
from streamlearn.checkpoint import Checkpoints, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.config import Config, SinkKeys
from streamlearn.configured_learner import learner_name
from streamlearn.conformal import Conformal
from streamlearn.control import Requests
from streamlearn.daemon import Daemon, Deadlines, Service
from streamlearn.decode import decoder_for
from streamlearn.disk import make_folder
from streamlearn.drift import Drift, Features, Reactions
from streamlearn.due import Due
from streamlearn.errors import ConfigError
from streamlearn.follower_files import FollowerFiles
from streamlearn.identities import Identities
from streamlearn.journal import Journal
from streamlearn.labels import LabelMap
from streamlearn.learners.exhausted import is_exhausted
from streamlearn.metrics import Metrics
from streamlearn.pending import Pending
from streamlearn.prefetch import Intake, Prefetch
from streamlearn.prequential import Parts, Prequential
from streamlearn.probe import Probe
from streamlearn.protocols import Decoder, Hastened, Learner, Publisher, Sink, Source
from streamlearn.records import LABEL, Headers, Json
from streamlearn.scrape import Info, MetricsPage, Telemetry
from streamlearn.settings import is_secret, read
from streamlearn.status import Status
from streamlearn.watch import LoopWatch

ANSWERS = "streamlearn-answers"
"""Partition of the answers that servers recorded."""
MAX_DEAD_LETTERS = 100_000  # in the embedded log; the oldest go first


def now_ms() -> int:
    """Milliseconds since the epoch, UTC: for files that people read, never for anything that is learned."""
    return time.time_ns() // 1_000_000


def sink(keys: SinkKeys, *, path: str) -> Sink:
    """A configured sink. Errors: ConfigError."""
    return connectors.open_sink(keys.type, keys.rest, path=path)


def prequential(config: Config, *, state_dir: Path, publisher: Publisher) -> Prequential:
    """The loop and all it puts in order, fresh; `daemon.recover` brings it to its checkpoint. Errors: ConfigError."""
    made = configured_learner.learner(config)
    labels = LabelMap(max_labels=config.label.max_labels, known=config.label.known, other=config.label.other)
    letters = DeadLetters(_dead_letter_sink(config, state_dir), config.dead_letters, clock_ms=now_ms)
    admission = Admission(labels, letters, Pending(config.pending, clock_ms=now_ms), Probe(config.probe, seed=config.seed))
    parts = Parts(
        intake=Intake(max_records=config.source.ahead_records, max_bytes=config.source.ahead_bytes),
        journal=Journal(state_dir / "journal"),
        admission=admission,
        chunks=Chunks(made.chunk, config.input.row),
        learner=made,
        metrics=Metrics.of(config.metrics),
        drift=Drift.of(config.drift, Features(config.input.row, config.input.named)),
        reactions=_reactions(config, made),
        conformal=Conformal(config.conformal),
        answers=_answer_log(config, admission, chunk=made.chunk),
        writer=CheckpointWriter(Checkpoints(state_dir / "checkpoints", keep=config.checkpoint.keep), clock_ms=now_ms),
        publisher=publisher,
    )
    return Prequential(
        parts,
        shape=config.input.row,
        schema=config.input.named,
        checkpoint_due=Due(every_s=config.checkpoint.every_s, every_count=config.checkpoint.every_records),
        publish_due=Due(every_s=config.publish.every_ms / 1000),
        max_records=config.source.poll_records,
        clock_ms=now_ms,
        is_short=is_exhausted,
    )


def _reactions(config: Config, made: Learner) -> Reactions:
    """Errors: ConfigError where steps are to be faster, and the learner has none of its own."""
    then, hasten = config.drift.then, cast(Hastened, made).hasten if hasattr(made, "hasten") else None
    if hasten is None or not hasten(1.0):
        hasten = None
        for name in ("on_error", "on_inputs"):
            if "faster" in getattr(then, name):
                raise ConfigError(
                    f"drift.then.{name} has 'faster', but learner '{learner_name(config)}' has no step sizes of its own: "
                    "expected la-maml, la-er, sliding-look-ahead or a pool with it; or leave 'faster' out"
                )
    return Reactions(then, chunk=made.chunk, hasten=hasten)


def _dead_letter_sink(config: Config, state_dir: Path) -> Sink:
    if config.dead_letters.sink is not None:
        return sink(config.dead_letters.sink, path="dead_letters.sink")
    bounded = {"unique_keys": True, "max_records": MAX_DEAD_LETTERS}
    return connectors.open_sink("log", {"path": str(state_dir / "dead_letters.sqlite"), **bounded})


def _answer_log(config: Config, admission: Admission, *, chunk: int) -> AnswerLog:
    if config.predictions is None:
        return NoAnswerLog()
    return AnswersTo(sink(config.predictions, path="predictions"), admission.labels, admission.positions, chunk=chunk)


def prefetch(
    config: Config,
    intake: Intake,
    positions: Mapping[str, int],
    *,
    open_source: Callable[[], Source] | None = None,
    recognise: Callable[[Mapping[str, str]], object] = lambda _: None,
) -> Prefetch:
    """The thread that reads ahead, not started; from the configured source, whose streams are remembered, unless told
    otherwise. Errors: ConfigError."""
    known = Identities(config.state_dir / "source.json")
    return Prefetch(
        open_source or source(config),
        decoder(config),
        intake,
        shape=config.input.row,
        positions=positions,
        poll_records=config.source.poll_records,
        give_up_s=config.source.give_up_s,
        recognise=recognise if open_source else known.recognise,
    )


def source(config: Config, *, pass_gaps: bool = True) -> Callable[[], Source]:
    """How to make what is read anew after it was lost: the source, and what is read beside it. Errors: ConfigError.

    `pass_gaps` is for recorded answers, which are kept for a while only.
    """
    main = _opens(config.source.type, config.source.rest, path="source")
    beside: list[tuple[Callable[[], Source], Headers]] = []
    if config.label_source is not None:
        beside.append((_opens(config.label_source.type, config.label_source.rest, path="label_source"), LABEL))
    if config.pending.record_answers:
        on_gap = "skip" if pass_gaps else "stop"
        answers = {"path": str(config.answers_path), "name": ANSWERS, "on_gap": on_gap}
        beside.append((_opens("log", answers, path="pending"), ()))
    if not beside:
        return main
    return lambda: TogetherSource([Beside(main()), *(Beside(opens(), marks) for opens, marks in beside)])


def _opens(name: str, values: Mapping[str, Json], *, path: str) -> Callable[[], Source]:
    kind = connectors.source_class(name, path=path)
    settings = read(kind.Settings, values, path=path)
    return lambda: cast(Source, kind(settings))


def decoder(config: Config) -> Decoder:
    """Bytes → rows. Errors: ConfigError."""
    return decoder_for(config.decode, config.input.row, label_type=config.label.type, schema=config.input.named)


def daemon(config: Config, *, extra: Sequence[Service] = ()) -> Daemon:
    """Everything that `streamlearn run` runs, not started yet. Errors: ConfigError for all that can be known beforehand.

    CheckpointError for a state directory that cannot be made.
    """
    make_folder(config.state_dir)
    config.process.check("process")
    (serving := configured_servers.service(config).settings).check("serve")
    torch.set_num_threads(1)  # two fight over every small operation
    torch.backends.cudnn.deterministic = True  # same stream, same bytes: without it, some gradients are summed in any order
    hosts = configured_servers.hosting(config)
    loop = prequential(config, state_dir=config.state_dir, publisher=hosts.publisher)
    floor = config.telemetry.accuracy_floor
    telemetry = Telemetry(_info(config), version=__version__, followers=FollowerFiles(hosts.folder), accuracy_floor=floor)
    facts = {
        "name": config.name,
        "learner": learner_name(config),
        "model": config.model.name,
        "source_type": config.source.type,
    }

    def watch(reading: Prefetch) -> LoopWatch:
        status = Status(config.state_dir / "status.json", loop, facts, clock_ms=now_ms)
        folders = {"state": config.state_dir, "publish": hosts.folder}
        return LoopWatch(loop, reading, status=status, telemetry=telemetry, servers=hosts.servers, folders=folders)

    return Daemon(
        state_dir=config.state_dir,
        loop=loop,
        make_prefetch=lambda positions: prefetch(config, loop.intake, positions),
        make_watch=watch,
        services=[MetricsPage(telemetry, config.telemetry), *hosts.services, *extra],
        close=loop.close,
        share=config.process.beside(config.serve.processes if config.serve.enabled else 0),
        deadlines=Deadlines(drain_s=serving.drain_s),
        requests=Requests(config.control_path),
    )


def _info(config: Config) -> Info:
    text = json.dumps(_without_secrets(config.model_dump(mode="json", exclude={"state_dir"})))
    return Info(
        name=config.name,
        learner=learner_name(config),
        model=config.model.name,
        source=config.source.type,
        device=config.device,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def _without_secrets(values: Json) -> Json:
    """A digest of a password, beside all else that goes into the digest, is a password that can be guessed at."""
    if isinstance(values, dict):
        return {name: "" if is_secret(name) else _without_secrets(value) for name, value in values.items()}
    return [_without_secrets(value) for value in values] if isinstance(values, list) else values
