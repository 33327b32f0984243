"""Runs of the rotations as figures, as a table for people, and as a picture."""

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import picture
from benchmarks.images import Images, angles
from benchmarks.plan import Plan, Run
from benchmarks.scores import Scores, mean_and_spread, scores
from streamlearn.records import Json

MIB = 1 << 20
PACKAGES = ("torch", "numpy", "numba", "kafka-python")
SHOWN_TASKS = (1, 5, 10, 15, 20)


def figures(plan: Plan, source: Images, runs: Sequence[Run], killed: Run | None) -> dict[str, Json]:
    """All that was measured, as JSON values."""
    learned = [scores(run.matrix, run.final) for run in runs]
    return {
        "data": source.name,
        "tasks": plan.tasks,
        "samples_per_task": plan.samples,
        "tests_per_task": min(plan.tests, len(source.y_test)),
        "tests_at_the_end": len(source.y_test),
        "degrees": angles(plan.tasks),
        "learner": dict(plan.learner),
        "kernel": runs[0].kernel,
        "seeds": list(plan.seeds),
        "per_cent": {name: _summary([getattr(each, name) for each in learned]) for name in Scores._fields},
        "prequential": [dict(run.accuracy) for run in runs],
        "matrices": [run.matrix.tolist() for run in runs],
        "final": [run.final for run in runs],
        "samples_per_s": {
            "end_to_end": _summary([plan.samples * plan.tasks / sum(run.task_s) for run in runs]),
            "by_processor_time": _summary([plan.samples * plan.tasks / sum(run.cpu_s) for run in runs]),
            "learning": _summary([_learning_rate(run.metrics) for run in runs]),
        },
        "requests": _requests(runs, plan.per_s),
        "memory": [_memory(run) for run in runs],
        "checkpoints": [_checkpoints(run) for run in runs],
        "idle_cpu_ratio": [list(run.idle_cpu or ()) for run in runs],
        "exit_codes": [run.exit_code for run in (*runs, *([killed] if killed else []))],
        "proofs": _proofs(runs[0], killed),
    }


def sound(found: Mapping[str, Json]) -> bool:
    """Whether every daemon drained cleanly and what should be the same bytes is."""
    proofs = found["proofs"]
    return not any(found["exit_codes"]) and all(
        proofs[name] in {None, proofs["undisturbed"]} for name in ("replayed", "killed")
    )


def circumstances(command: str) -> dict[str, Json]:
    """What ran where and when."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": done.stdout.strip() or "unknown",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, no GPU used",
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def write(found: Mapping[str, Json], folder: Path, name: str) -> None:
    """`name`.json, .md and .png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1, allow_nan=True) + "\n")
    (folder / f"{name}.md").write_text(table(found) + f"\n![accuracy by task]({name}.png)\n")
    picture.draw(found, folder / f"{name}.png")


def table(found: Mapping[str, Json]) -> str:
    """For people."""
    rows = [
        f"| {name} | {value} |" for name, value in (*_accuracies(found), *_speeds(found), *_costs(found), *_promises(found))
    ]
    return "\n".join([*_heading(found), "| measure | value |", "|---|---|", *rows, "", *_seed_rows(found)]) + "\n"


def _heading(found: Mapping[str, Json]) -> list[str]:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    settings = ", ".join(f"{name} {value}" for name, value in found["learner"].items() if name != "name")
    return [
        f"# Rotations on {found['data']}",
        "",
        f"{found['tasks']} tasks of {found['samples_per_task']} samples, one angle each, produced to Kafka; learned by"
        f" `streamlearn run` ({found['learner']['name']}: {settings}) in a process of its own; answers over HTTP from its"
        f" follower process. After each task {found['tests_per_task']} test images of every task are asked, after the last all"
        f" {found['tests_at_the_end']} of each. ± is the sample standard deviation over seeds {found['seeds']}.",
        "",
        f"Machine: {found['machine']}; load at the end {found['load'][0]} (other work beside it). Python {found['python']},"
        f" {packages}. {found['date']}, commit {found['commit']}. Command: `{found['command']}`.",
        "",
    ]


def _accuracies(found: Mapping[str, Json]) -> list[tuple[str, str]]:
    scored = found["per_cent"]
    return [
        ("retained accuracy (RA), %", _shown(scored["retained"])),
        ("backward transfer and interference (BTI), %", _shown(scored["interference"])),
        ("accuracy just after each task, %", _shown(scored["just_after"])),
    ]


def _speeds(found: Mapping[str, Json]) -> list[tuple[str, str]]:
    rates, asked = found["samples_per_s"], found["requests"]
    return [
        ("a short replay before all, which compiles the kernel where no compiled one lies, s", f"{found['warm_s']:.0f}"),
        ("samples/s, from the first record produced to the last one served", _shown(rates["end_to_end"], 0)),
        ("samples per second of processor time, whole learner's process", _shown(rates["by_processor_time"], 0)),
        (f"samples/s, of the learner alone ({found['kernel']} kernel)", _shown(rates["learning"], 0)),
        (
            f"request of one row while learning, open loop at {asked['per_s']:g}/s, ms",
            f"p50 {asked['p50_ms']:.2f}, p99 {asked['p99_ms']:.2f} of {asked['count']}, {asked['failed']} failed",
        ),
    ]


def _costs(found: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The worst over all seeds, but for the means."""
    memory, saved, idle = found["memory"], found["checkpoints"], found["idle_cpu_ratio"]
    tasks = [t for t in SHOWN_TASKS if t <= found["tasks"]]
    by_task = ", ".join(f"{memory[0]['learner_mib'][t - 1]:.0f}" for t in tasks)
    peaks = [max(each[name] for each in memory) for name in ("learner_peak_mib", "follower_peak_mib")]
    change = max((each["learner_change_per_cent"] for each in memory), key=abs)
    pause, write = (np.mean([each[name] for each in saved]) for name in ("pause_mean_ms", "write_mean_ms"))
    bound = max(each["pause_bound_ms"] for each in saved)
    busy = [100 * max(each[i] for each in idle) for i in (0, 1)]
    return [
        ("peak memory of learner and follower, MiB", f"{peaks[0]:.0f} and {peaks[1]:.0f}"),
        (f"learner's memory after tasks {', '.join(map(str, tasks))} (first seed), MiB", by_task),
        ("largest change of the learner's memory from the first task on, %", f"{change:+.1f}"),
        ("pause for a checkpoint, ms", f"mean {pause:.1f}, all within {bound:g}"),
        ("writing it beside the loop, mean, ms", f"{write:.0f}"),
        ("processor on an idle topic, learner and follower, % of a core", f"{busy[0]:.1f} and {busy[1]:.1f}"),
    ]


def _promises(found: Mapping[str, Json]) -> list[tuple[str, str]]:
    proofs = found["proofs"]
    if proofs["killed"] is None:
        return []
    killed = "{}; killed at {served}, went on from {restored}".format(_same(proofs, "killed"), **proofs["killed_at"])
    return [
        ("model after `kill -9` in the middle", killed),
        ("model after `streamlearn replay` of the same records", _same(proofs, "replayed")),
    ]


def _same(proofs: Mapping[str, Json], name: str) -> str:
    return "the same bytes" if proofs[name] == proofs["undisturbed"] else "**different bytes**"


def _seed_rows(found: Mapping[str, Json]) -> list[str]:
    columns = zip(found["seeds"], *(found["per_cent"][name]["values"] for name in Scores._fields), strict=True)
    rows = [f"| {seed} | {retained:.2f} | {after:.2f} | {lost:.2f} |" for seed, retained, after, lost in columns]
    return ["| seed | RA % | just after % | BTI % |", "|---|---|---|---|", *rows]


def _shown(summary: Mapping[str, Json], digits: int = 2) -> str:
    mean, spread = summary["mean"], summary["spread"]
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _summary(values: Sequence[float]) -> dict[str, Json]:
    mean, spread = mean_and_spread(values)
    return {"mean": mean, "spread": None if math.isnan(spread) else spread, "values": list(values)}


def _learning_rate(metrics: Mapping[str, float]) -> float:
    return metrics['streamlearn_records_total{outcome="learned"}'] / metrics["streamlearn_learn_seconds_sum"]


def _requests(runs: Sequence[Run], per_s: float) -> dict[str, Json]:
    latencies_ms = 1000 * np.concatenate([run.latencies_s for run in runs])
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    by_seed = [np.percentile(1000 * np.array(run.latencies_s), [50, 99]).tolist() for run in runs]
    failed = sum(run.failed_requests for run in runs)
    return {"per_s": per_s, "count": len(latencies_ms), "failed": failed, "p50_ms": p50, "p99_ms": p99, "by_seed_ms": by_seed}


def _memory(run: Run) -> dict[str, Json]:
    learner, follower = ([pair[i].now_bytes / MIB for pair in run.memory] for i in (0, 1))
    return {
        "learner_mib": learner,
        "follower_mib": follower,
        "learner_peak_mib": run.memory[-1][0].peak_bytes / MIB,
        "follower_peak_mib": run.memory[-1][1].peak_bytes / MIB,
        "learner_change_per_cent": _largest_change(learner),
        "follower_change_per_cent": _largest_change(follower),
    }


def _largest_change(values: Sequence[float]) -> float:
    """Of any value from the first, in per cent, with its sign."""
    return max((100 * (value / values[0] - 1) for value in values), key=abs)


def _checkpoints(run: Run) -> dict[str, Json]:
    pause_s, bound_s = _histogram(run.metrics, "streamlearn_checkpoint_pause_seconds")
    write_s, _ = _histogram(run.metrics, "streamlearn_checkpoint_seconds")
    size_mib = run.metrics["streamlearn_checkpoint_size_bytes"] / MIB
    count = run.metrics["streamlearn_checkpoint_seconds_count"]
    return {
        "count": count,
        "size_mib": size_mib,
        "pause_mean_ms": 1000 * pause_s,
        "pause_bound_ms": 1000 * bound_s,
        "write_mean_ms": 1000 * write_s,
    }


def _histogram(metrics: Mapping[str, float], name: str) -> tuple[float, float]:
    """Mean, and the least bound of a bucket that no value was above."""
    count = metrics[f"{name}_count"]
    if not count:
        return math.nan, math.nan
    start = f'{name}_bucket{{le="'
    bounds = [float(key[len(start) : -2]) for key, value in metrics.items() if key.startswith(start) and value == count]
    return metrics[f"{name}_sum"] / count, min(bounds)


def _proofs(first: Run, killed: Run | None) -> dict[str, Json]:
    return {
        "undisturbed": first.checkpoint["model_digest"],
        "replayed": first.replayed and first.replayed["model_digest"],
        "killed": killed and killed.checkpoint["model_digest"],
        "killed_at": killed and dict(killed.killed or {}),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
