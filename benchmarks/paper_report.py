"""Runs on the paper's streams as a table for people."""

from collections.abc import Mapping

from benchmarks.paper_plan import LEARNERS, MEASURED, PUBLISHED, REMARKS, Said
from benchmarks.scores import figure, mean_and_spread
from benchmarks.tasks import STREAMS
from streamlearn.records import Json

HEAD = (
    "| learner | seeds | RA, auto | RA, ever | right after each task | BTI, auto | BTI, ever | dead rates | CPU s | "
    "published RA / BTI | authors' code RA / BTI |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
)
INTRODUCTION = """# The paper's streams

MNIST, 784-100-100-10, one pass, no task identity, all 10,000 test images of every task, mean ± standard deviation over
seeds, in per cent. RA: accuracy over all tasks after the stream. BTI: that minus the accuracy right after each task. `auto`
and `ever`: what the question is about; they differ where a learner has fast and slow weights. Dead rates: share of learned
step sizes at zero. CPU s: of all `learn` calls, one thread of a machine that did other things too, so compare them loosely.
Published figures: Gupta, Yadav, Paull 2020, table 1, from memory; the authors' code: forms proven equal to it, measured
beforehand, one to five seeds.
"""


def table(runs: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """Markdown, one table for each stream that has runs."""
    parts = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n"]
    for stream, shape in STREAMS.items():
        if any(name.startswith(f"{stream}/") for name in runs):
            lines = [_line(runs, stream, row) for row in LEARNERS]
            title = f"## {stream.capitalize()}: {shape.tasks} tasks of {shape.samples}, memory {shape.memory}\n\n"
            parts.append(title + HEAD + "\n".join(lines) + "\n")
    remarks = "\n".join(f"- `{row}`: {remark}." for row, remark in REMARKS.items())
    return "\n".join([*parts, *_agreement(runs), remarks, "", "Command: `python -m benchmarks.paper`.", ""])


def _line(runs: Mapping[str, Json], stream: str, row: str) -> str:
    cells = [cell for name, cell in runs.items() if name.rsplit("/", 1)[0] == f"{stream}/{row}"]
    others = [str(said.get(row, {}).get(stream, "")) for said in (PUBLISHED, MEASURED)]
    if not cells:
        return f"| {' | '.join([f'`{row}`', '0', 'not run', *[''] * 6, *others])} |"
    figures = [figure([cell[about]["retained"] for cell in cells], 2) for about in ("auto", "ever")]
    figures.append(figure([cell["auto"]["just_after"] for cell in cells], 2))
    figures += [figure([cell[about]["interference"] for cell in cells], 2) for about in ("auto", "ever")]
    dead = [cell["zero_rates"] for cell in cells if cell["zero_rates"] is not None]
    figures += [figure(dead, 2), figure([cell["cpu_s"] for cell in cells], 1)]
    if row == "iid":
        figures[2:5] = ["", "", ""]
    return f"| {' | '.join([f'`{row}`', str(len(cells)), *figures, *others])} |"


def _agreement(runs: Mapping[str, Json]) -> list[str]:
    """Our RA less that of others, where there are seeds enough for a spread."""
    lines = []
    for row in LEARNERS:
        for stream in STREAMS:
            ours = [cell["auto"]["retained"] for name, cell in runs.items() if name.rsplit("/", 1)[0] == f"{stream}/{row}"]
            said = [kind.get(row, {}).get(stream) for kind in (MEASURED, PUBLISHED)]
            if len(ours) > 1 and any(said):
                lines.append(f"| `{row}` | {stream} | {' | '.join(_apart(ours, other) for other in said)} |")
    title = "## Agreement: our RA less theirs\n\nIn parentheses the standard error of the difference, of both sides' seeds;"
    rule = '"within": the difference is at most their standard deviation, "outside": more.\n'
    return [title, rule, "| learner | stream | authors' code | published |\n|---|---|---|---|", *lines, ""] if lines else []


def _apart(ours: list[float], said: Said | None) -> str:
    if said is None:
        return ""
    mean, spread = mean_and_spread(ours)
    apart = f"{mean - said.retained:+.2f}"
    if said.spread is None:
        return f"{apart} (one seed)"
    error = (spread**2 / len(ours) + said.spread**2 / said.seeds) ** 0.5
    return f"{apart} ({error:.2f}), {'within' if abs(mean - said.retained) <= said.spread else 'outside'}"
