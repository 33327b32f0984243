"""The whole daemon on a real Kafka beside decode and learn alone, on the same JSON records of 64 features.

    python -m benchmarks.pipeline                          five rounds in turns, one of them with every stage timed
    python -m benchmarks.pipeline --records 20000 --rounds 3 --cells columns

Each side is a process of its own: `alone` decodes and learns in runs of 500 on one thread; `daemon` is all that
`streamlearn run` has, with its defaults, a prefetch thread and a follower. Both learn the same first records uncounted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.cells import machine
from benchmarks.pipeline_side import PART
from benchmarks.scores import quartiles
from benchmarks.testbed.ports import free_port
from benchmarks.topic import Topic, broker
from connectors import open_sink
from streamlearn.decode.json import encode
from streamlearn.records import Array, Json, Message

RESULTS = Path(__file__).parents[1] / "docs/results/pipeline.json"
FEATURES, LABELS = 64, 10
UNCOUNTED = 2000  # records, while labels are met and code is loaded
BEHIND = 10_000  # records behind the counted ones, so that reading ahead goes on until the last of those
CELLS = {
    "array": ("array", "auto"),
    "columns": ("columns", "auto"),
    "array, nearest-mean": ("array", "nearest-mean"),
}
"""How features are given, and which learner: one that costs next to nothing shows the pipe itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, print it, keep it."""
    asked = _parser().parse_args(arguments)
    kept: dict[str, Json] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="streamlearn-") as folder, broker(Path(folder) / "kafka") as address:
        for cell in asked.cells:
            kept[cell] = compared(cell, address, Path(folder) / cell, rounds=asked.rounds, records=asked.records)
            print(told(cell, kept[cell]), flush=True)
    kept["machine"] = machine()
    asked.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def compared(cell: str, address: str, folder: Path, *, rounds: int, records: int) -> dict[str, Json]:
    """Quartiles of rows a second and CPU microseconds a row of both, of their ratio round by round, and a run in stages."""
    form, learner = CELLS[cell]
    folder.mkdir(parents=True)
    recorded = folder / "recorded.messages"
    messages = sample_messages(UNCOUNTED + records + BEHIND, form)
    with closing(open_sink("file", {"path": str(recorded)})) as sink:
        sink.write(messages)
    with closing(Topic(address, f"pipeline-{os.getpid()}-{list(CELLS).index(cell)}")) as topic:
        topic.produce(messages)
        config = configuration(form, learner) | {
            "source": {"type": "kafka", "bootstrap_servers": address, "topics": [topic.name]},
            "serve": {"port": free_port()},
            "telemetry": {"port": free_port()},
        }
        sides: dict[str, list[dict[str, Json]]] = {"alone": [], "daemon": []}
        for turn in range(rounds):
            for side in sides if turn % 2 else reversed(sides):
                sides[side].append(_child(side, config, folder / f"{turn}-{side}", recorded=recorded, records=records))
        stages = _child("stages", config, folder / "stages", recorded=recorded, records=records)
    both = zip(sides["daemon"], sides["alone"], strict=True)
    ratios = [daemon["rows_per_s"] / alone["rows_per_s"] for daemon, alone in both]
    found = {side: {name: quartiles([run[name] for run in runs]) for name in runs[0]} for side, runs in sides.items()}
    record_bytes = round(float(np.mean([len(message.value) for message in messages])))
    return {
        "records": records,
        "record_bytes": record_bytes,
        "rounds": rounds,
        "ratio": quartiles(ratios),
        **found,
        "stages": stages,
    }


def told(cell: str, found: Mapping[str, Json]) -> str:
    """Two tables: both sides, and the stages of the daemon in microseconds a row."""
    names = ("rows_per_s", "cpu_us")
    sides = [f"| {side} | {' | '.join(_shown(found[side][name]) for name in names)} |" for side in ("alone", "daemon")]
    whole, stages = found["stages"]["whole"], found["stages"]["stages"]
    rows = [f"| {name} | {cpu:.1f} | {wall:.1f} |" for name, (cpu, wall) in sorted(stages.items())]
    rest = whole["cpu_us"] - sum(cpu for name, (cpu, _) in stages.items() if PART not in name)
    rows += [
        f"| everything else | {rest:.1f} | |",
        f"| whole process | {whole['cpu_us']:.1f} | {1e6 / whole['rows_per_s']:.1f} |",
    ]
    head = f"{cell}: {found['records']} records of {found['record_bytes']} bytes, {found['rounds']} rounds; "
    head += f"rows/s of the daemon over those alone: {_shown(found['ratio'], 2)}\n"
    both = ["| side | rows/s | CPU µs a row |", "|---|---|---|", *sides, ""]
    return "\n".join([head, *both, "| stage | CPU µs a row | µs a row that passed |", "|---|---|---|", *rows, ""])


def _shown(quartiles: Sequence[float], digits: int = 0) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles)
    return f"{middle} ({low} to {high})"


def configuration(form: str, learner: str) -> dict[str, Json]:
    """A learner on 64 features, given as an array or by name."""
    names = {f"column_{i:02d}": "numeric" for i in range(FEATURES)}
    return {
        "name": "pipeline",
        "input": {"columns": names} if form == "columns" else {"shape": [FEATURES]},
        "decode": {"format": "json"},
        "learner": {"name": learner},
        "log": {"level": "warning"},
    }


def sample_messages(count: int, form: str) -> list[Message]:
    """Labelled records of an endless stream: each label has a centre, numbers have four decimals."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(LABELS, FEATURES))
    labels = random.integers(0, LABELS, count)
    x = np.round(centres[labels] + random.normal(size=(count, FEATURES)), 4)
    return [_message(row, int(label), form) for row, label in zip(x, labels, strict=True)]


def _message(row: Array, label: int, form: str) -> Message:
    if form == "array":
        return encode(row, label)
    named = {f"column_{i:02d}": value for i, value in enumerate(row.tolist())}
    return Message(json.dumps({"features": named, "label": label}).encode())


def _child(side: str, config: Mapping[str, Json], folder: Path, *, recorded: Path, records: int) -> dict[str, Json]:
    asked = {"config": {**config, "state_dir": str(folder)}, "recorded": str(recorded), "records": records}
    asked |= {"side": side, "uncounted": UNCOUNTED}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline_side"], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the side '{side}' ended with {done.returncode}: {done.stderr[-3000:]}")
    found: dict[str, Json] = json.loads(done.stdout.splitlines()[-1])
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--records", type=int, default=30_000, help="counted, in each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
