"""How long an answer takes while the learner works at full speed, and what answering costs the learner; beside MLServer.

    python -m benchmarks.serving                                  three rounds of all designs; two cores that nobody else uses
    python -m benchmarks.serving --rounds 1 --designs followed mlserver --seconds 3

One row of 64 numbers as JSON, at a steady pace; a question is due at its time whether or not those before were answered (open
loop), over 32 connections. A design is started anew in each round, so that designs take turns. The learner is La-MAML on the
network 64-100-100-10; `idle` is the same daemon after all records. MLServer has a scikit-learn network of that size. nginx
with a fixed answer computes nothing: it shows what this machine leaves to anybody.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import asker
from benchmarks.cells import keep, known
from benchmarks.process import Daemon, busy_s, cpu_s, stolen_s
from benchmarks.questions import json_body
from benchmarks.rival import ENVIRONMENT, MODEL, Fixed, MLServer, fixed_program, hog
from benchmarks.serving_report import DESIGNS, Design, page
from connectors import open_sink, open_source
from streamlearn.records import Json, Message

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "serving.json"
FEATURES, CLASSES, HIDDEN = 64, 10, (100, 100)
RATES = (100, 500, 1000)  # questions a second
RECORDS = 2000  # that an idle daemon has learned
NAME = "serving"
STREAM: dict[str, Any] = {"features": FEATURES, "classes": CLASSES, "format": "tensor"}


class Target(NamedTuple):
    """What is asked, and whose processor time is taken: the learner's process first, where there is one."""

    port: int
    path: str
    pids: list[int]
    daemon: Daemon | None


@contextmanager
def started(design: Design, folder: Path) -> Iterator[Target]:
    """The processes of a design, ready."""
    with ExitStack() as ends:
        for _ in range(design.hogs):
            ends.callback((busy := hog()).wait)
            ends.callback(busy.kill)
        if design.workers is not None:
            rival = MLServer(folder / "rival", features=FEATURES, classes=CLASSES, hidden=HIDDEN, workers=design.workers)
            ends.callback(rival.close)
            yield Target(rival.port, f"/v2/models/{MODEL}/infer", rival.pids, None)
            return
        fixed = ends.enter_context(closing(Fixed(folder / "fixed"))) if design.fixed else None
        if fixed and not design.learns:
            yield Target(fixed.port, "/", fixed.pids, None)
            return
        daemon = ends.enter_context(Daemon(_config(design, folder), folder / "daemon"))
        _await(daemon, 1 if design.learns else RECORDS)
        if fixed:
            yield Target(fixed.port, "/", [daemon.pid, *fixed.pids], daemon)
        else:
            yield Target(daemon.port, f"/v2/models/{NAME}/infer", [daemon.pid, *daemon.followers()], daemon)
        daemon.stop()


def _await(daemon: Daemon, learned: int) -> None:
    until = time.monotonic() + 120
    while daemon.metrics()['streamlearn_records_total{outcome="learned"}'] < learned:
        assert time.monotonic() < until, f"{learned} records were not learned"
        time.sleep(0.5)


def _config(design: Design, folder: Path) -> dict[str, Json]:
    source: dict[str, Any] = {"type": "synthetic", **STREAM}
    if not design.learns:
        path = str(folder / "samples.sqlite")
        with (
            closing(open_source("synthetic", STREAM | {"records": RECORDS})) as drawn,
            closing(open_sink("log", {"path": path})) as log,
        ):
            drawn.seek({})
            while records := drawn.poll(RECORDS, 0.1):
                log.write([Message(record.value or b"", record.key, record.headers) for record in records])
        source = {"type": "log", "path": path}
    return {
        "name": NAME,
        "source": source,
        "decode": {"format": "tensor"},
        "input": {"shape": [FEATURES]},
        "model": {"name": "mlp", "hidden": list(HIDDEN)},
        "learner": {"name": "la-maml"},
        "serve": {"processes": design.processes, **design.serve},
        "process": dict(design.process),
    }


def measured(target: Target, rate: int, seconds: float) -> dict[str, Json]:
    """What came of asking so often for so long, between two halves of that time in which nobody asks."""
    alone = [learned_per_s(target.daemon, seconds / 2)]
    with asker.Asking(asker.Target(target.port, target.path, rate, _bodies())) as asking:
        asking.start()
        time.sleep(0.5)
        pids = [asking.pid, *target.pids]
        before, began = [stolen_s(), busy_s(), *map(cpu_s, pids)], time.monotonic()
        beside = learned_per_s(target.daemon, seconds)
        took = time.monotonic() - began
        spent = (now - was for now, was in zip([stolen_s(), busy_s(), *map(cpu_s, pids)], before, strict=True))
        stolen, all_cores, asker_cores, *cores = (each / took for each in spent)
        told = asking.stop()
    alone.append(learned_per_s(target.daemon, seconds / 2))
    per_s = statistics.mean(each for each in alone if each is not None) if target.daemon else None
    return {
        **{f"p{at:g}_ms": 1e3 * float(np.percentile(told.latencies_s, at)) for at in (50, 99, 99.9)},
        "asked": len(told.latencies_s),
        "failed": told.failed,
        "late_p99_ms": 1e3 * float(np.percentile(told.late_s, 99)),
        "learner_ratio": beside / per_s if per_s and beside else None,
        "learned_per_s": per_s,
        "server_cores": sum(cores[1:] if target.daemon and len(cores) > 1 else cores),
        "asker_cores": asker_cores,
        "other_cores": all_cores - asker_cores - sum(cores),
        "stolen_cores": stolen,
    }


def learned_per_s(daemon: Daemon | None, seconds: float) -> float | None:
    """Of a daemon, from one of its reports to another about so many seconds later; None where nothing learns."""
    if daemon is None:
        time.sleep(seconds)
        return None
    first = _report(daemon)
    time.sleep(max(seconds - 1.0, 0.0))
    last = _report(daemon)
    return (last[1] - first[1]) / (last[0] - first[0])


def _report(daemon: Daemon) -> tuple[float, int]:
    """When the next status is written, and what it counts."""
    path = daemon.state_dir / "status.json"
    before = path.stat().st_mtime_ns
    until = time.monotonic() + 5
    while path.stat().st_mtime_ns == before and time.monotonic() < until:
        time.sleep(0.005)
    return path.stat().st_mtime_ns / 1e9, int(json.loads(path.read_bytes())["outcomes"]["learned"])


def _bodies() -> list[str]:
    rows = np.random.default_rng(0).normal(size=(64, FEATURES)).astype(np.float32)
    return [json_body(row[None]).decode() for row in rows]


def _lacking(design: Design) -> str | None:
    """What has to be installed for it; None where nothing has."""
    if design.workers is not None and not ENVIRONMENT.exists():
        return "MLServer is not installed (make mlserver)"
    if design.fixed and fixed_program() is None:
        return "nginx is not installed (apt-get install nginx-light)"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each rate is asked")
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--rates", nargs="+", type=int, default=list(RATES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    told.results.parent.mkdir(parents=True, exist_ok=True)
    for number in range(told.rounds):
        for name in told.designs:
            design = DESIGNS[name]
            if lacking := _lacking(design):
                print(f"{name} is left out: {lacking}", file=sys.stderr)
                continue
            folder = Path(tempfile.mkdtemp(prefix="serving-"))
            with started(design, folder) as target:
                for rate in told.rates:
                    found = measured(target, rate, told.seconds)
                    keep(told.results, f"{name}/{rate}/{number}", found)
                    print(name, rate, number, json.dumps(found), flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    told.results.with_suffix(".md").write_text(page(known(told.results), json.loads(told.results.read_text())["machine"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
