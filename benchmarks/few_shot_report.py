"""Cells of `benchmarks.few_shot` as tables for people."""

from collections.abc import Mapping

from benchmarks.scores import figure
from streamlearn.records import Json

SHAPES = {"5-1": "5-way 1-shot", "5-5": "5-way 5-shot", "20-1": "20-way 1-shot", "20-5": "20-way 5-shot"}
ROWS = ("maml", "fomaml", "anil", "reptile", "imaml", "comln")
WIDTHS = {
    "narrow": "16 channels (64 features), 4 episodes a meta-step; each trained for about three minutes of one core",
    "full": "64 channels, 60,000 meta-steps of 32 episodes",
}
PUBLISHED: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("MAML, its paper; norms of the batch", {"5-1": "98.7", "5-5": "99.9", "20-1": "95.8", "20-5": "98.9"}),
    ("MAML, others' runs", {"5-1": "94.7 to 99.4", "20-1": "83.4 to 94.5"}),
    ("Reptile, its paper (from memory); norms of the batch", {"5-1": "97.7", "5-5": "99.5", "20-1": "89.4", "20-5": "97.1"}),
    ("iMAML, others' runs of two codes; its paper's 99.5 was not reproduced", {"5-1": "98.2, 96.7"}),
)
INTRODUCTION = """# Few drawings of characters never seen before

Four convolutions of stride 2 on images of 28 by 28, norms of one image alone (inductive: the published rows had norms over all
questions of an episode, which an answer in a stream cannot have). Trained on background characters, asked 200 episodes of
evaluation characters, 5 questions a character; per cent, mean ± standard deviation over seeds. In parentheses the nearest
class mean of the same features, which needs no adaptation. `untrained` is that of the network as drawn. COMLN published
nothing on Omniglot: compare it with ANIL on the same trunk. Reptile trains on ten drawings a character, two of each in an inner
step, and takes 20 steps where it is asked. A meta-step of iMAML (ten inner steps, five of conjugate
gradients) takes as long as four of MAML's: in the same time it gets that many fewer. COMLN's derivatives have an entry for each
pair of drawings, label and drawing: with 20 ways and 5 drawings one meta-step takes more than a minute and a half of one core.
**Reduced and full rows are not to be compared with each other.**
"""


def table(runs: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """Markdown, both widths."""
    head = f"| | seeds | {' | '.join(SHAPES.values())} | meta-steps | CPU s of training |\n" + "|---" * (4 + len(SHAPES)) + "|"
    parts = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n"]
    for width, about in WIDTHS.items():
        parts.append(f"## {width.capitalize()}: {about}\n")
        if any(name.startswith(f"{width}/") for name in runs):
            parts += [head, *(_line(runs, width, row) for row in ROWS), _untrained(runs, width), ""]
        else:
            parts.append(
                "**Not run**: `python -m benchmarks.few_shot --device cuda --width full` goes on where it was stopped.\n"
            )
    parts += ["## Published, full width\n", "| " + " | ".join(["", *SHAPES.values()]) + " |", "|---" * (1 + len(SHAPES)) + "|"]
    parts += [f"| {who} | {' | '.join(said.get(shape, '') for shape in SHAPES)} |" for who, said in PUBLISHED]
    return "\n".join([*parts, "", _sinusoid(runs), "Commands: in `benchmarks/few_shot.py`.", ""])


def _cells(runs: Mapping[str, Json], group: str) -> list[Json]:
    return [cell for name, cell in runs.items() if name.rsplit("/", 1)[0] == group]


def _line(runs: Mapping[str, Json], width: str, row: str) -> str:
    by_shape = {shape: _cells(runs, f"{width}/{row}/{shape}") for shape in SHAPES}
    figures = [
        f"{figure([c['accuracy'] for c in cells])} ({figure([c['nearest_mean']['trained'] for c in cells])})"
        if cells
        else "not run"
        for cells in by_shape.values()
    ]
    seconds = [cell["cpu_s"] for cells in by_shape.values() for cell in cells]
    steps = "/".join(f"{cells[0]['steps']:,}" if cells else "" for cells in by_shape.values())
    seeds = "/".join(str(len(cells)) for cells in by_shape.values())
    spent = f"{min(seconds):.0f} to {max(seconds):.0f}" if seconds else ""
    return f"| {' | '.join([f'`{row}`', seeds, *figures, steps, spent])} |"


def _untrained(runs: Mapping[str, Json], width: str) -> str:
    figures = []
    for shape in SHAPES:
        cells = [cell for row in ROWS for cell in _cells(runs, f"{width}/{row}/{shape}")]
        figures.append(f"({figure([cell['nearest_mean']['untrained'] for cell in cells])})" if cells else "")
    return f"| untrained | | {' | '.join(figures)} | | |"


def _sinusoid(runs: Mapping[str, Json]) -> str:
    cells = _cells(runs, "sinusoid/maml/10")
    if not cells:
        return "## Sinusoids\n\n**Not run.**\n"
    lines = [
        f"| {name} | {' | '.join(figure([cell[f'{key}, {after}'] for cell in cells], 2) for after in (0, 1, 10))} |"
        for name, key in (
            ("MAML, one step of 0.01", "maml"),
            ("trained on all waves together, the best step of five", "all waves"),
        )
    ]
    steps = f"{cells[0]['steps']:,} meta-steps of 25 waves (theirs: 70,000)"
    about = f"Mean squared error on 200 new waves after so many steps on 10 points; {len(cells)} seeds, {steps}.\n"
    return "\n".join(["## Sinusoids\n", about, "| | 0 steps | 1 step | 10 steps |", "|---|---|---|---|", *lines, ""])
