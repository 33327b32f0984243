"""The tables of `benchmarks.drift`: delays, misses and false alarms, leads of early signs, what faster steps buy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamlearn.records import Json

HEAD = """\
# How soon is drift noticed, and how often for nothing?

Streams whose change points are known; each seed leaves out another random tenth of the rows. *Found*: change points
with a detection within the stream's horizon (1,500 rows after an abrupt change, 4,000 after the beginning of a gradual
one; or up to the next point), of all. *Delay*: rows from the point to the first such detection, mean ± standard
deviation over all that were found. *False*: detections outside every horizon for each 10,000 rows there, and on *still*
streams, the same rows shuffled, for each 10,000. Detectors as configured by default. `always` fires as soon and as
often as its refractory time allows and looks at nothing: a detector is worth as much as it is better than that.

- `abrupt_insects`, `arabic_digits`, `interchanging_rbf` (10,000 rows), `turned MNIST` (5 angles of 1,200 images, 784
  inputs) change abruptly, `insects_gradual` and `turning MNIST` (within 800 rows) gradually.

Not every learner ran on every stream, nor every stream for three seeds: how many points a row is about is under *found*.

Two settings of detectors on the inputs, the refractory time and KSWIN's window, were changed after a look at seed 0 of
`abrupt_insects`: its rows on the inputs are of a stream that was tuned on.
"""
WARM_UP = {"error": 500, "inputs": 1000, "sign": 1000}
EVERY = {"error": 1000, "inputs": 1000, "sign": 1000}
COLUMNS = ("stream", "detector", "found", "delay", "false", "false, still")


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
    parts += ["## On the error", "", *_detectors(runs, "error", ("pool", "la-maml")), ""]
    parts += ["The learner is the pool, and `la-maml` on images.", ""]
    parts += ["## On the inputs", "", *_detectors(runs, "inputs", ("inputs",)), ""]
    parts += ["## Early signs", "", SIGNS_HEAD, *_signs(runs), "", SIGNS_END, "", *_lead_table(runs), ""]
    parts += ["## Faster steps", "", FASTER_HEAD, *_faster(runs)]
    return "\n".join(parts) + f"\n\nMade by `python -m benchmarks.drift`; {told}.\n"


def _groups(runs: Mapping[str, Any], kind: str, learners: Sequence[str]) -> Iterator[tuple[str, str, list[Any], list[Any]]]:
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
                if kind != "sign":
                    break


def _detectors(runs: Mapping[str, Any], kind: str, learners: Sequence[str]) -> Iterator[str]:
    yield from _head(COLUMNS)
    for stream, _, changes, stills in _groups(runs, kind, learners):
        for name in [*(name for name in changes[0]["fired"] if name.startswith(f"{kind}/")), f"{kind}/always"]:
            yield _line([f"`{stream}`", f"`{name.split('/')[1]}`", *_figures(changes, stills, name, kind)])


def _figures(changes: Sequence[Any], stills: Sequence[Any], name: str, kind: str) -> list[str]:
    found = [judged(_fired(run, name, kind), run, first=WARM_UP[kind]) for run in changes]
    idle = [judged(_fired(run, name, kind), run, first=WARM_UP[kind]) for run in stills]
    delays = np.concatenate([each.delays for each in found])
    return [f"{int((~np.isnan(delays)).sum())} of {len(delays)}", _spread(delays), _rate(found), _rate(idle)]


def _fired(run: Mapping[str, Any], name: str, kind: str) -> Sequence[int]:
    rows: Sequence[int] = always(run, kind) if name.endswith("/always") else run["fired"].get(name, [])
    return rows


SIGNS_HEAD = """\
ADWIN on what a learner tells of its own updates, one value for each call of 20 rows (of the pool: 50) (a change either
way, warm-up 1,000 rows), beside ADWIN on the same learner's error, and the *forgetting* of the probe (a tenth of the
records, tested every 200): told when it has risen by 5 points above its least since it was last told.
"""
SIGNS_END = """\
*Lead*: rows by which the sign's first detection within the horizon came before that of the other, over the points that
both found: mean ± standard deviation (number of points). Below 0 the sign came later.
"""
SIGN_COLUMNS = ("learner", "stream", "what", "found", "delay", "false", "false, still")
LEAD_COLUMNS = ("learner", "stream", "sign", "lead over ADWIN on the error", "lead over forgetting")
LEARNERS = ("la-maml", "pool", "sliding-look-ahead")


def _signs(runs: Mapping[str, Any]) -> Iterator[str]:
    yield from _head(SIGN_COLUMNS)
    for stream, learner, changes, stills in sorted(_groups(runs, "sign", LEARNERS), key=lambda group: LEARNERS.index(group[1])):
        names = [name for name in changes[0]["fired"] if name.startswith("sign/") or name in {"error/adwin", "forgetting"}]
        for name in [*names, "sign/always"]:
            yield _line(
                [f"`{learner}`", f"`{stream}`", f"`{name.removeprefix('sign/')}`", *_figures(changes, stills, name, "sign")]
            )


def _lead_table(runs: Mapping[str, Any]) -> Iterator[str]:
    yield from _head(LEAD_COLUMNS)
    for stream, learner, changes, _ in sorted(_groups(runs, "sign", LEARNERS), key=lambda group: LEARNERS.index(group[1])):
        for name in [*(name for name in changes[0]["fired"] if name.startswith("sign/")), "sign/always"]:
            over = [_leads(changes, name, other) for other in ("error/adwin", "forgetting")]
            yield _line([f"`{learner}`", f"`{stream}`", f"`{name.removeprefix('sign/')}`", *over])


def _leads(changes: Sequence[Any], name: str, other: str) -> str:
    both = [
        [np.array(judged(_fired(run, each, "sign"), run, first=WARM_UP["sign"]).delays) for each in (other, name)]
        for run in changes
    ]
    leads = np.concatenate([theirs - ours for theirs, ours in both])
    known = leads[~np.isnan(leads)]
    return f"{_spread(known)} ({len(known)})" if len(known) else "–"


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
        yield _line([f"`{learner}`", f"`{stream}`", *(_spread(np.array(cell), digits=1) for cell in cells)])


def _rate(found: Sequence[Judged]) -> str:
    outside = sum(each.outside for each in found)
    return f"{1e4 * sum(each.false for each in found) / outside:.1f}" if outside else "–"


def _spread(values: Any, *, digits: int = 0) -> str:
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not len(known):
        return "–"
    return f"{known.mean():.{digits}f}" + (f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else "")


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns))]


def _line(cells: Sequence[str | Json]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
