"""Hours in short: full load for a time, and millions of samples; what a process holds must not grow with the stream (P3).

A daemon reads an endless drifting stream as fast as it can while questions come all along; resident memory, open files, threads
and latency of the learner's process and of its server are looked at, kept as figures, and drawn in docs/results/soak_*.svg.

Flat is: over the last three quarters of the looks, the median of the second half is at most 1.05 times that of the first half
for resident memory and 1 more for open files and threads. Latency has no bound of its own, for the machine does other things as
well: its medians stand in the row.
"""

import contextlib
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from benchmarks.process import Daemon, memory
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.stream import PATIENCE_S
from benchmarks.reliability.table import ROOT, Outcome, scenario

FEATURES, MINUTES, SAMPLES = 16, 30.0, 5_000_000
QUESTION = json.dumps({"inputs": [{"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.1] * FEATURES}]})
ASKED = 50  # questions between two looks
WARM = 0.25  # of the looks: caches fill, and the allocator finds its size
GROWTH = 1.05  # what the second half may hold of resident memory, as a multiple of what the first one did


class Look(NamedTuple):
    """What was seen at one moment; of the learner's process, then of its server."""

    seconds: float
    learned: float
    resident_bytes: int
    files: int
    threads: int
    server_bytes: int
    server_files: int
    server_threads: int
    p50_s: float
    p99_s: float  # the slowest of `ASKED`


def soaked(daemon: Daemon, is_over: Callable[[float, float], bool], *, every_s: float) -> list[Look]:
    """Looks at a running daemon until `is_over(seconds, learned)`. Errors: AssertionError for a question that failed."""
    looks = list[Look]()
    (server,) = daemon.followers()
    while not daemon.metrics()['streamlearn_records_total{outcome="learned"}']:
        time.sleep(1.0)  # before the first label there is no answer
    began = time.monotonic()
    while not looks or not is_over(looks[-1].seconds, looks[-1].learned):
        due = began + every_s * (len(looks) + 1)
        latencies = sorted(_asked(daemon.port) for _ in range(ASKED))
        time.sleep(max(0.0, due - time.monotonic()))
        learned = daemon.metrics()['streamlearn_records_total{outcome="learned"}']
        now = time.monotonic() - began
        looks.append(Look(now, learned, *held(daemon.pid), *held(server), latencies[ASKED // 2], latencies[-1]))
    assert daemon.followers() == [server], "the server lived all along"
    return looks


def held(pid: int) -> tuple[int, int, int]:
    """Resident memory, open files and threads of a process."""
    of = Path(f"/proc/{pid}")
    return memory(pid).now_bytes, len(os.listdir(of / "fd")), len(os.listdir(of / "task"))  # noqa: PTH208  no Path is needed


def _asked(port: int) -> float:
    """Seconds that an answer took."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/v2/models/soak/infer", QUESTION)
        response = connection.getresponse()
        response.read()
        assert response.status == http.HTTPStatus.OK, f"a question was answered {response.status}"
    return time.perf_counter() - began


def halves(looks: Sequence[Look], name: str) -> tuple[float, float]:
    """Medians of a figure over the first and the second half of the looks, the warm-up left out."""
    values = [float(getattr(look, name)) for look in looks[int(WARM * len(looks)) :]]
    middle = len(values) // 2
    return statistics.median(values[:middle] or values), statistics.median(values[middle:])


def judged(looks: Sequence[Look]) -> str:
    """The row's words. Errors: AssertionError when something grew."""
    said = []
    for who, prefix in (("learner", ""), ("server", "server_")):
        size = halves(looks, "server_bytes" if prefix else "resident_bytes")
        files, threads = halves(looks, f"{prefix}files"), halves(looks, f"{prefix}threads")
        assert size[1] <= GROWTH * size[0], f"{who}: resident memory grew from {size[0] / 1e6:.1f} to {size[1] / 1e6:.1f} MB"
        assert files[1] <= files[0] + 1, f"{who}: open files grew from {files[0]:.0f} to {files[1]:.0f}"
        assert threads[1] <= threads[0] + 1, f"{who}: threads grew from {threads[0]:.0f} to {threads[1]:.0f}"
        said.append(
            f"{who} {size[0] / 1e6:.1f} and {size[1] / 1e6:.1f} MB, files {files[0]:.0f} and {files[1]:.0f}, threads"
            f" {threads[0]:.0f} and {threads[1]:.0f}"
        )
    p50, p99 = halves(looks, "p50_s"), halves(looks, "p99_s")
    return (
        f"flat over {looks[-1].learned:,.0f} samples in {looks[-1].seconds / 60:.1f} min, in its first and second half: "
        f"{'; '.join(said)}; median answer {1e3 * p50[0]:.2f} and {1e3 * p50[1]:.2f} ms, slowest of {ASKED}"
        f" {1e3 * p99[0]:.1f} and {1e3 * p99[1]:.1f} ms; 0 questions failed"
    )


DRAWN = (  # label, scale, figures with their names
    ("resident MB", 1e-6, {"resident_bytes": "learner", "server_bytes": "server"}),
    ("open files", 1, {"files": "learner", "server_files": "server"}),
    ("threads", 1, {"threads": "learner", "server_threads": "server"}),
    ("answer, ms", 1e3, {"p50_s": "median", "p99_s": f"slowest of {ASKED}"}),
)


def drawn(looks: Sequence[Look], path: Path) -> None:
    """The looks as a plot."""
    mpl.rcParams["svg.hashsalt"] = "soak"
    figure, axes = plt.subplots(len(DRAWN), 1, figsize=(8, 9), sharex=True)
    for axis, (label, scale, names) in zip(axes, DRAWN, strict=True):
        for name, word in names.items():
            axis.plot([look.learned / 1e6 for look in looks], [scale * getattr(look, name) for look in looks], label=word)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="lower right")
    axes[-1].set_xlabel(f"million samples learned, in {looks[-1].seconds / 60:.1f} minutes")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def run(
    bench: Bench, name: str, learner: dict[str, Any], is_over: Callable[[float, float], bool], *, every_s: float
) -> Outcome:
    """A daemon of its own, looked at until it is over."""
    config = {
        "name": "soak",
        "source": {"type": "synthetic", "features": FEATURES, "classes": 8, "format": "tensor"},
        "decode": {"format": "tensor"},
        "input": {"shape": [FEATURES]},
        "model": {"name": "mlp", "hidden": [32]},
        "learner": learner,
    }
    with contextlib.ExitStack() as ends:
        daemon = Daemon(config, bench.folder)
        ends.push(daemon)
        daemon.start(within_s=PATIENCE_S)
        looks = soaked(daemon, is_over, every_s=every_s)
        assert daemon.stop() == 0, "it drained"
    results = bench.folder if bench.quick else ROOT / "docs" / "results"
    drawn(looks, results / f"soak_{name}.svg")
    (results / f"soak_{name}.json").write_text(json.dumps([look._asdict() for look in looks]) + "\n")
    return Outcome(judged(looks), 1)


@scenario(
    "soak",
    "full load for half an hour",
    produced="la-maml on an endless drifting stream read without a pace; questions all along; 30 min or what the row says",
)
def full_load(bench: Bench) -> Outcome:
    """La-MAML with a replay memory. SOAK_MINUTES shortens it."""
    minutes = 0.1 if bench.quick else float(os.environ.get("SOAK_MINUTES", MINUTES))
    every_s = 0.5 if bench.quick else max(1.0, minutes / 5)
    return run(bench, "full_load", {"name": "la-maml"}, lambda seconds, _: seconds >= 60 * minutes, every_s=every_s)


@scenario(
    "soak",
    "five million samples",
    produced="sgd in chunks of 50 on the same stream, until 5,000,000 were learned unless the row says otherwise",
)
def many_samples(bench: Bench) -> Outcome:
    """A quick learner, so that the stream is long. SOAK_SAMPLES shortens it."""
    samples = 5_000 if bench.quick else int(os.environ.get("SOAK_SAMPLES", SAMPLES))
    every_s = 0.5 if bench.quick else 5.0
    return run(bench, "many_samples", {"name": "sgd", "chunk": 50}, lambda _, learned: learned >= samples, every_s=every_s)
