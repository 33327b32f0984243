"""What a sample costs as work grows, as a table and a plot for people."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from streamlearn.records import Json

TITLES = {
    "stream": "rows learned before",
    "memory": "rows that the replay memory holds, all filled",
    "chunk": "rows of a chunk, with 10 inner steps (1 at chunk 1)",
    "call": "rows of a call of `learn`",
    "labels": "labels in the softmax",
}
COLOURS = {"pool": "tab:blue", "la-maml": "tab:orange"}
MIB = 1 << 20
INTRODUCTION = """# Cost as work grows

16 columns, 10 labels and the learners' defaults unless said; whole `learn` calls, CPU µs a sample on one thread, median
(quartiles) of 15 calls, of all calls of a stretch for the length of the stream. The machine did other things too, so small
differences say nothing. State: bytes of the learner's arrays; resident: memory of the whole process. Points that are missing
(lengths up to 1,000,000 rows; both learners in all tables but that of chunks) were not run; the command runs them.
"""


def table(points: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """Markdown, a table for each thing that grows."""
    lines = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n", "![plot](cost.svg)\n"]
    for what, title in TITLES.items():
        if own := _sorted(points, what):
            lines += [f"## {title[0].upper() + title[1:]}\n", "| learner | | CPU µs a sample | state, MiB | resident, MiB |"]
            lines += ["|---|---|---|---|---|", *(_line(name, size, found) for name, size, found in own), ""]
    return "\n".join([*lines, "Command: `python -m benchmarks.cost`.", ""])


def draw(points: Mapping[str, Json], path: Path) -> None:
    """Write the plot: one panel for each thing that grows."""
    shown = [what for what in TITLES if _sorted(points, what)]
    with mpl.rc_context({"font.size": 8, "svg.hashsalt": "cost", "svg.fonttype": "none"}):
        figure = Figure(figsize=(2.6 * max(1, len(shown)), 2.8), layout="constrained")
        panels = figure.subplots(1, max(1, len(shown)), squeeze=False, sharey=True)[0]
        for panel, what in zip(panels, shown, strict=False):
            for name in dict.fromkeys(name for name, _, _ in _sorted(points, what)):
                own = [(size, found) for of, size, found in _sorted(points, what) if of == name]
                sizes, middle = [size for size, _ in own], [found["us"] for _, found in own]
                low, high = zip(*(found["quartiles"] for _, found in own), strict=True)
                panel.plot(sizes, middle, color=COLOURS.get(name), marker="o", ms=3, label=name)
                panel.fill_between(sizes, low, high, color=COLOURS.get(name), alpha=0.2)
            panel.set(title=TITLES[what].split(",")[0].replace("`", ""), yscale="log")
            panel.set_xscale("log")
            panel.grid(alpha=0.3)
            panel.legend()
        figure.supylabel("CPU µs a sample")
        figure.savefig(path, metadata={"Date": None})


def _sorted(points: Mapping[str, Json], what: str) -> list[tuple[str, int, Json]]:
    found = [(*name.split("/")[1:], cell) for name, cell in points.items() if name.startswith(f"{what}/")]
    return sorted(((name, int(size), cell) for name, size, cell in found), key=lambda one: one[:2])


def _line(name: str, size: int, found: Json) -> str:
    low, high = found["quartiles"]
    resident = f"{found['resident_bytes'] / MIB:.0f}" if "resident_bytes" in found else ""
    cost = f"{found['us']:,.0f} ({low:,.0f} to {high:,.0f})"
    return f"| `{name}` | {size:,} | {cost} | {found['state_bytes'] / MIB:.1f} | {resident} |"
