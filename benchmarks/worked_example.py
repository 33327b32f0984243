"""What a warm start is for: the daemon learns characters it has never seen, one after another, warm and cold.

    python -m benchmarks.worked_example                     # one seed on the embedded log, one CPU core: an hour and a half
    python -m benchmarks.worked_example --kafka             # the same through a real Kafka
    python -m benchmarks.worked_example --pictures FOLDER   # and the page as Chromium shows it when the stream has ended

`streamlearn meta-train` makes warm starts of Omniglot's background characters, with the settings that `omniglot_plan` has for
64 channels; one that lies in the folder already is taken as it is. Then one `streamlearn run` after another learns the same
evaluation characters, 15 drawings each, one drawing an update: begun from a warm start, and begun cold with the same network
and learner. Other drawings are asked through the endpoint. Step sizes are chosen beforehand on background characters held
out of meta-training. Runs that are not yet in docs/results/worked_example.json are made and put there.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.bench import encoded, say
from benchmarks.cells import command_line, keep, known, report
from benchmarks.images import Images
from benchmarks.images import Task as Shown
from benchmarks.omniglot import from_start, learned, made
from benchmarks.omniglot_data import characters, path, rows_by_class, stream
from benchmarks.omniglot_plan import HEADS, WIDTHS
from benchmarks.omniglot_trunks import HELD_OUT, INPUTS, corpus
from benchmarks.process import PROGRAM, Daemon, memory
from benchmarks.questions import Questions
from benchmarks.topic import Topic, broker
from benchmarks.worked_example_report import ASKED_AFTER, table
from connectors import open_sink
from streamlearn.learners.task import Task
from streamlearn.meta import warm_start
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Initialisation, Json, Message

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "worked_example.json"
NAME = "characters"
TAUGHT, ASKED = 15, 5
TUNED_ON = 30  # held-out background characters
WITHIN_S = 180.0  # an answer from what was just learned; more than a busy machine takes
STARTS = ("oml", "supervised-views")  # of those that `omniglot_plan` has
LEARNERS = ("sgd", "er", "streaming-lda", "nearest-mean")
Write = Callable[[Sequence[Message]], None]
ARMS = [f"{start}/{learner}" for start in (*STARTS, "cold") for learner in LEARNERS]


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    source = characters()
    with tempfile.TemporaryDirectory(prefix="streamlearn-") as scratch, _broker(asked, Path(scratch)) as address:
        for seed in asked.seeds:
            for arm in asked.arms:
                name = f"{'kafka' if asked.kafka else 'log'}/{asked.characters}/{arm}/{seed}"
                if name not in known(asked.results):
                    run = Example(asked, source, seed=seed, folder=Path(scratch) / name.replace("/", "-"), address=address)
                    keep(asked.results, name, run.learned(arm))
    report(asked.results, table)


def _broker(asked: argparse.Namespace, scratch: Path) -> AbstractContextManager[str]:
    return broker(scratch / "kafka") if asked.kafka else nullcontext("")


class Example:
    """One daemon on one order of the evaluation characters."""

    def __init__(self, asked: argparse.Namespace, source: Images, *, seed: int, folder: Path, address: str) -> None:
        self._asked, self._source, self._seed, self._folder, self._address = asked, source, seed, folder, address
        by_class = rows_by_class(source.y_test)
        self._stream = stream(by_class, characters=asked.characters, taught=TAUGHT, asked=ASKED, seed=seed)

    def learned(self, arm: str) -> dict[str, Json]:
        """The whole stream through one daemon, and what came of it."""
        kind, _, learner = arm.partition("/")
        file = self._meta_trained(kind) if kind in STARTS else None
        start = warm_start.load(file) if file else None
        rates = self.rates(learner, start)
        rate = max(rates, key=lambda each: rates[each]) if rates else None
        config = self._config(learner, float(rate) if rate else None, file)
        self._folder.mkdir(parents=True)
        with _upstream(self._folder, self._address) as (keys, write), Daemon(config | {"source": keys}, self._folder) as daemon:
            found = self._taught(write, daemon) | self._costs(daemon)
            if self._asked.pictures:
                _picture(daemon, self._asked.pictures / f"{NAME}-{kind}-{learner}-{self._seed}.png")
            daemon.stop()
            newest = daemon.state_dir / "checkpoints" / daemon.inspected()["checkpoint"]
            found["checkpoint_bytes"] = sum(each.stat().st_size for each in newest.iterdir())
        say(f"{arm}, seed {self._seed}: {found['met'][-1]:.1f} % of all {self._asked.characters} at the end")
        begun = {"steps": start.steps, "fingerprint": start.fingerprint} if start else None
        return {**found, "rate": rate, "rates": rates, "start": begun, "channels": self._asked.channels}

    def rates(self, learner: str, start: Initialisation | None) -> dict[str, float]:
        """Per cent right on held-out background characters at the end of a stream of them, by step size."""
        head, rates, images = HEADS[learner], {}, self._source.x_train.astype(np.float32)
        held = list(corpus(self._source, self._seed).held_out)
        near = stream(held, characters=min(TUNED_ON, len(held)), taught=TAUGHT, asked=ASKED, seed=self._seed)
        for rate in head.rates:
            if start is not None:
                tried = from_start(head, start, seed=self._seed, rate=rate)
            else:
                task = Task(images.shape[1:], seed=self._seed, model=ModelSettings(**self._model()), inputs=INPUTS)
                tried = made(head, task, rate)
            rates[f"{rate:g}"] = learned(tried, images, near, lengths=[len(near.taught)])["test"].popitem()[1]
        return rates

    def _meta_trained(self, kind: str) -> Path:
        """The warm start, made by `streamlearn meta-train` where it is not there yet.

        Errors: SystemExit when what is there held other characters out, on which step sizes could not be chosen.
        """
        file: Path = self._asked.folder / f"{kind}-{self._seed}.safetensors"
        plan = WIDTHS["medium"].trained[kind]
        config: dict[str, Json] = {
            "seed": self._seed,
            "state_dir": str(file.with_suffix("")),
            "warm_start": str(file),
            "input": self._input(),
            "model": self._model(),
            "corpus": {"path": str(path()), "x": "x_train", "y": "y_train", "held_out": HELD_OUT, "views": dict(plan.views)},
            "meta": {"algorithm": kind.partition("-")[0], "steps": plan.steps, **plan.settings, **self._asked.meta},
        }
        if not file.is_file():
            self._asked.folder.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".yaml").write_text(yaml.safe_dump(config))
            subprocess.run([*PROGRAM, "meta-train", str(file.with_suffix(".yaml"))], check=True)
        if warm_start.load(file).split != corpus(self._source, self._seed).fingerprint:
            raise SystemExit(f"{file} was made with other characters held out than those of seed {self._seed}: remove it")
        return file

    def _input(self) -> dict[str, Json]:
        return {"shape": list(self._source.x_test.shape[1:]), "transform": INPUTS.model_dump(mode="json")}

    def _model(self) -> dict[str, Json]:
        return {"name": "split", "channels": self._asked.channels, "layout": "pooled"}

    def _config(self, learner: str, rate: float | None, meta: Path | None) -> dict[str, Json]:
        head = HEADS[learner]
        settings = {"name": head.learner, **head.settings, **({head.rate: rate} if rate is not None else {})}
        return {
            "name": NAME,
            "seed": self._seed,
            "input": self._input(),
            "decode": {"format": "tensor"},
            "label": {"type": "integer", "max_labels": 1024},
            "model": self._model(),
            "learner": settings,
            "publish": {"every_ms": 20},
            "probe": {"share": 0.1, "era_records": 10 * TAUGHT, "score_every": 10 * TAUGHT},
            "checkpoint": {"every_records": 10 * TAUGHT},
            **({"warm_start": str(meta)} if meta else {}),
        }

    def _taught(self, write: Write, daemon: Daemon) -> dict[str, Json]:
        """Accuracy on the characters met so far after each, and on a new one after some of its drawings."""
        met: list[float] = []
        new: list[list[float]] = []
        sent = 0
        with Questions(daemon.port, NAME) as questions:
            for number, rows in enumerate(self._stream.taught):
                new.append([])
                for first, until in zip((0, *ASKED_AFTER), ASKED_AFTER, strict=False):
                    drawings = Shown(0.0, self._source.x_test[rows[first:until]], np.full(until - first, number))
                    write(encoded(drawings, first=sent))
                    sent += until - first
                    questions.wait_for(_learned(daemon, sent), within_s=WITHIN_S)
                    new[-1].append(self._right(questions, self._stream.asked[number : number + 1], number))
                met.append(self._right(questions, self._stream.asked[: number + 1], 0))
        return {"met": met, "new": np.mean(new, 0).tolist()}

    def _right(self, questions: Questions, rows: Array, first: int) -> float:
        """Per cent, of drawings [characters, drawings] of which the first has this label."""
        answers = questions.ask(self._source.x_test[rows.reshape(-1)]).labels
        return 100 * float((answers == np.repeat(np.arange(first, first + len(rows)), rows.shape[1])).mean())

    def _costs(self, daemon: Daemon) -> dict[str, Json]:
        """Milliseconds of learning a drawing and of an answer, bytes, and what the page says is retained."""
        shown = daemon.metrics()
        rows = self._stream.asked.reshape(-1)[:200]
        answered = []
        with Questions(daemon.port, NAME) as questions:
            for row in rows:
                began = time.perf_counter()
                questions.ask(self._source.x_test[[row]])
                answered.append(1000 * (time.perf_counter() - began))
        learned_rows = shown['streamlearn_records_total{outcome="learned"}']
        return {
            "learn_ms": 1000 * shown["streamlearn_learn_seconds_sum"] / learned_rows,
            "answer_ms": float(np.median(answered)),
            "resident_bytes": memory(daemon.pid).now_bytes,
            "retention": 100 * shown['streamlearn_mean_retention_ratio{about="auto"}'],
            "probe_rows": shown['streamlearn_records_total{outcome="probe"}'],
        }


def _learned(daemon: Daemon, sent: int, *, within_s: float = WITHIN_S) -> int:
    """The number of the model that has met this many records, each of them learned or kept for the probe."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        counts = {name: value for name, value in daemon.metrics().items() if name.startswith("streamlearn_records_total{")}
        if sum(counts.values()) >= sent:
            return int(counts['streamlearn_records_total{outcome="learned"}'])
        time.sleep(0.02)
    raise TimeoutError(f"{counts} after {within_s:g} s: expected {sent} records")


@contextmanager
def _upstream(folder: Path, address: str) -> Iterator[tuple[dict[str, Json], Write]]:
    """A topic of the broker at `address`, else a log in `folder`: keys of the source, and what writes to it."""
    if address:
        with closing(Topic(address, folder.name)) as topic:
            yield {"type": "kafka", "bootstrap_servers": address, "topics": [topic.name]}, topic.produce
        return
    log = {"path": str(folder / f"{NAME}.sqlite")}
    with closing(open_sink("log", log)) as sink:

        def write(messages: Sequence[Message]) -> None:
            sink.write(messages)
            sink.flush(60.0)

        yield {"type": "log", **log}, write


def _picture(daemon: Daemon, path: Path) -> None:
    """The page as Chromium shows it, where there is a Chromium."""
    if (browser := shutil.which("chromium")) is None:
        say("no chromium: no picture of the page")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,2600"]
    waits = ["--virtual-time-budget=4000", f"--screenshot={path}"]
    subprocess.run([browser, *flags, *waits, f"http://127.0.0.1:{daemon.port}/"], capture_output=True, check=True)


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS, seeds=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--characters", type=int, default=100)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--meta", type=json.loads, default={}, help="JSON of settings of meta-train that shall be others")
    parser.add_argument("--kafka", action="store_true", help="the stream goes through a real Kafka")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    parser.add_argument("--folder", type=Path, default=Path("build/worked_example"), help="where warm starts are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
