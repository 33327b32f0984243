"""The tables of `benchmarks.drift`: delays, misses and false alarms, leads of early signs, what faster steps buy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.scores import figure
from streamlearn.records import Array, Json

HEAD = """\
# How soon is drift noticed, and how often for nothing?

Streams whose change points are known; each seed leaves out another random tenth of the rows. *Found*: change points
with a detection within the stream's horizon (1,500 rows after an abrupt change, 4,000 after the beginning of a gradual
one; or up to the next point), of all. *Delay*: rows from the point to the first such detection, mean ± standard
deviation over all that were found. *False*: detections outside every horizon for each 10,000 rows there, and on *still*
streams, the same rows shuffled, for each 10,000. Detectors as configured by default. `always` fires as soon and as
often as its refractory time allows and looks at nothing: a detector is worth as much as it is better than that.

- `abrupt_insects`, `arabic_digits`, `interchanging_rbf` (10,000 rows), `turned MNIST` (5 angles of 1,200 images, 784
  inputs) change abruptly, `insects_gradual` and `turning MNIST` (within 800 rows) gradually. In `blurred …` each row of an
  abrupt stream is moved by up to 500 rows, so that the change comes within 1,000; its point is where that begins.

Where settings are from: `delta` and `clock` of ADWIN on answers from generated streams and other seeds
([drift_choice.md](drift_choice.md)); what is watched of a spread from ten columns of one law each, other seeds than here;
two settings of detectors on the inputs, the refractory time and KSWIN's window, were changed after a look at seed 0 of
`abrupt_insects`: its rows on the inputs are of a stream that was tuned on. All else is river's default.
"""
WARM_UP = {"error": 500, "inputs": 1000, "sign": 1000}
EVERY = {"error": 1000, "inputs": 1000, "sign": 1000}
COLUMNS = ("stream", "detector", "found", "delay", "false", "false, still")
MEANS_COLUMNS = (*COLUMNS, "means alone: found", "delay", "false", "false, still")


class Judged(NamedTuple):
    """Detections of one run."""

    delays: tuple[float, ...]  # one for each point; NaN where it was missed
    false: int
    outside: int  # rows in which a detection is false


def judged(fired: Sequence[int], run: Mapping[str, Any], *, first: int) -> Judged:
    """Rows before `first`, in which the detector warms up, count for nothing."""
    points = [point for point in run["points"] if point >= first]
    ends = [min(p + run["horizon"], n) for p, n in zip(points, [*points[1:], run["rows"]], strict=False)]
    inside = np.zeros(run["rows"], bool)
    delays = []
    for point, end in zip(points, ends, strict=True):
        inside[point:end] = True
        delays.append(min((row - point for row in fired if point <= row < end), default=np.nan))
    inside[:first] = True
    return Judged(tuple(delays), sum(not inside[row] for row in fired if row >= first), int((~inside).sum()))


def always(run: Mapping[str, Any], kind: str) -> list[int]:
    """Rows at which the detector that looks at nothing fires."""
    return list(range(WARM_UP[kind], run["rows"], EVERY[kind]))


def table(runs: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    """Markdown."""
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    parts = [HEAD]
    parts += ["## On the answers", "", ANSWERS_HEAD, *_detectors(runs, "error", ("pool", "la-maml")), ""]
    parts += ["## On the inputs", "", INPUTS_HEAD, *_detectors(runs, "inputs", ("inputs",)), ""]
    parts += ["## Early signs", "", SIGNS_HEAD, *_signs(runs), ""]
    parts += ["## Faster steps", "", FASTER_HEAD, *_faster(runs)]
    return "\n".join(parts) + f"\n\nMade by `python -m benchmarks.drift`; {told}.\n"


def _groups(runs: Mapping[str, Any], learners: Sequence[str]) -> Iterator[tuple[str, str, list[Any], list[Any]]]:
    """(stream, learner, its runs, its runs that stand still): of each stream the first of the learners that ran on it."""
    streams = dict.fromkeys(name.split("/")[2] for name in runs if name.startswith("changes/"))
    for stream in streams:
        for learner in learners:
            changes = [run for name, run in runs.items() if name.startswith(f"changes/{learner}/{stream}/")]
            if changes:
                yield (
                    stream,
                    learner,
                    changes,
                    [run for name, run in runs.items() if name.startswith(f"still/{learner}/{stream}/")],
                )
                break


def _detectors(runs: Mapping[str, Any], kind: str, learners: Sequence[str]) -> Iterator[str]:
    means = {group[0]: group[2:] for group in _groups(runs, ("means",))} if kind == "inputs" else {}
    yield from _head(MEANS_COLUMNS if kind == "inputs" else COLUMNS)
    for stream, _, changes, stills in _groups(runs, learners):
        for name in [*(name for name in changes[0]["fired"] if name.startswith(f"{kind}/")), f"{kind}/always"]:
            beside = _figures(means[stream][0], means[stream][1], name, kind) if stream in means else []
            yield _line([f"`{stream}`", f"`{name.split('/')[1]}`", *_figures(changes, stills, name, kind), *beside])


def _figures(changes: Sequence[Any], stills: Sequence[Any], name: str, kind: str) -> list[str]:
    found = [judged(_fired(run, name, kind), run, first=WARM_UP[kind]) for run in changes]
    idle = [judged(_fired(run, name, kind), run, first=WARM_UP[kind]) for run in stills]
    delays = np.concatenate([each.delays for each in found])
    return [f"{int((~np.isnan(delays)).sum())} of {len(delays)}", spread(delays), _rate(found), _rate(idle)]


def _fired(run: Mapping[str, Any], name: str, kind: str) -> Sequence[int]:
    rows: Sequence[int] = always(run, kind) if name.endswith("/always") else run["fired"].get(name, [])
    return rows


INPUTS_HEAD = """\
As by default, mean and spread of each feature (or projection) watched; beside it means alone. In `spread …` streams
(10 columns of normal, Student's t₃ and lognormal laws, 8,000 rows) the spread of one column is multiplied half-way, and
no mean moves.
"""
ANSWERS_HEAD = """\
`adwin`, `page_hinkley` and `kswin` watch the error, `surprise` is ADWIN on 1 − the probability that the answer gave to the
label. The learner is the pool, and `la-maml` on images.
"""
SIGNS_HEAD = """\
Streams together, by how they change. `error/adwin`, `error/surprise` and `inputs/…` are the detectors above; the signs are
what a learner tells of its own updates (gradient alignment, share of step sizes at zero, update norm), the mean loss and
the share of changed answers of 100 remembered rows asked again, and how far the weights of the pool's members moved: one
value for each call of 20 rows, watched by Page-Hinkley for a change either way, warm-up 1,000 rows. `doubt` is ADWIN on
1 − the probability of the likeliest label, which needs no labels. *forgetting*: the probe (a tenth of the records, tested
every 200) told of a rise by 5 points above its least since it last did.

*Lead*: rows by which the first detection within the horizon came before that of ADWIN on the error, over the points that
both found: mean ± standard deviation (number of points); below 0 it came later. *Sooner* and *later*: points at which it
came before ADWIN on the error, or it alone did; and the other way round.
"""
SIGN_COLUMNS = (
    "learner",
    "changes",
    "what",
    "found",
    "delay",
    "false",
    "false, still",
    "lead",
    "sooner",
    "later",
    "lead over forgetting",
)
LEARNERS = ("pool", "la-maml", "sliding-look-ahead")
SHOWN = ("error/adwin", "error/surprise", "inputs/adwin", "inputs/page_hinkley", "sign/", "forgetting")
GRADUAL_FROM = 2000  # rows of a horizon


def _signs(runs: Mapping[str, Any]) -> Iterator[str]:
    yield from _head(SIGN_COLUMNS)
    for learner in LEARNERS:
        changes, stills = (_with_inputs(runs, kind, learner) for kind in ("changes", "still"))
        for kind in ("abrupt", "gradual"):
            own = [run for run in changes if (run["horizon"] > GRADUAL_FROM) == (kind == "gradual")]
            names = dict.fromkeys(name for run in own for name in run["fired"] if name.startswith(SHOWN))
            for name in [*names, "sign/always"] if own else ():
                told = [f"`{learner}`", kind, f"`{name.removeprefix('sign/')}`", *_figures(own, stills, name, "sign")]
                yield _line([*told, *_leads(own, name)])


def _with_inputs(runs: Mapping[str, Any], kind: str, learner: str) -> list[Any]:
    """Runs of a learner, and in each what detectors on the inputs of the same rows found."""
    found = []
    for name, run in runs.items():
        if name.startswith(f"{kind}/{learner}/"):
            beside = runs.get(name.replace(f"/{learner}/", "/inputs/"), {"fired": {}})["fired"]
            found.append({**run, "fired": {**beside, **run["fired"]}})
    return found


def _leads(changes: Sequence[Any], name: str) -> list[str]:
    ours, error, forgetting = (
        np.concatenate([judged(_fired(run, each, "sign"), run, first=WARM_UP["sign"]).delays for run in changes])
        for each in (name, "error/adwin", "forgetting")
    )
    when, then = (np.where(np.isnan(delays), np.inf, delays) for delays in (ours, error))
    return [_lead(error - ours), str(int((when < then).sum())), str(int((when > then).sum())), _lead(forgetting - ours)]


def _lead(leads: Array) -> str:
    known = leads[~np.isnan(leads)]
    return f"{spread(known)} ({len(known)})" if len(known) else "–"


FASTER_HEAD = """\
Accuracy of the answers given before each label, over the whole stream, per cent, mean ± standard deviation over seeds:
as it is, and with step sizes times 2 for 500 rows from each detection of ADWIN on the error (`drift.then.on_error:
[faster]`).
"""


def _faster(runs: Mapping[str, Any]) -> Iterator[str]:
    yield from _head(("learner", "stream", "as it is", "times 2"))
    for group in dict.fromkeys(tuple(name.split("/")[1:3]) for name in runs if name.startswith("faster/")):
        learner, stream = group
        plain = {name.split("/")[-1]: run for name, run in runs.items() if name.startswith(f"changes/{learner}/{stream}/")}
        cells = [[100 * run["accuracy"] for run in plain.values()]]
        cells.append([100 * run["accuracy"] for name, run in runs.items() if name.startswith(f"faster/{learner}/{stream}/")])
        yield _line([f"`{learner}`", f"`{stream}`", *(spread(np.array(cell), digits=1) for cell in cells)])


def _rate(found: Sequence[Judged]) -> str:
    outside = sum(each.outside for each in found)
    return f"{1e4 * sum(each.false for each in found) / outside:.1f}" if outside else "–"


def spread(values: Any, *, digits: int = 0) -> str:
    """Mean ± standard deviation of what is not NaN."""
    known = np.asarray(values, float)
    return figure(known[~np.isnan(known)].tolist(), digits) or "–"


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns))]


def _line(cells: Sequence[str | Json]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
