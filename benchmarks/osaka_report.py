"""Runs of `benchmarks.osaka` as tables for people."""

from collections.abc import Mapping

from benchmarks.osaka_plan import CHUNK, ROWS, SHARES, STAYS, STEPS, TUNED_STEPS
from benchmarks.scores import figure
from streamlearn.records import Json

COLUMNS = ("all", "first of a task", "later", *SHARES, "found", "false")
INTRODUCTION = f"""# A stream that changes its task unannounced

After OSAKA (Caccia et al. 2020), reduced: {STEPS} chunks of {CHUNK} images (10 classes, 5 each) where theirs has 10,000; a
perceptron of 100 and 100 units where theirs has four convolutions; evaluation characters of Omniglot (half of the tasks),
MNIST and Fashion-MNIST (a quarter each); labels in an order of each task's own. α is the chance that the next chunk is of the
same task. Figures are per cent of answers that were right before their chunk was learned, mean ± standard deviation over
seeds; `all` is the cumulative accuracy, chance is 10. Found and false: chunks at which a switch was signalled, of those that
were the first of a task and of the others. Every row's step sizes (and steps) are the best of three over
{TUNED_STEPS} chunks of a stream of another seed. No table of theirs could be had; as remembered, Continual-MAML is well ahead
of online SGD. Where the column says fewer than three seeds, no more were run; the same command goes on.
"""


def table(runs: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """Markdown, a table for each α."""
    parts = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n"]
    for stays in STAYS:
        parts += [
            f"## α = {stays}\n",
            f"| row | seeds | {' | '.join(COLUMNS)} | chosen | CPU s |",
            "|---" * (4 + len(COLUMNS)) + "|",
        ]
        parts += [_line(runs, stays, row) for row in ROWS] + [_verdict(runs, stays)]
    remarks = [f"- `{name}`: {row.about}." for name, row in ROWS.items()]
    return "\n".join([*parts, *remarks, "", "Command: `python -m benchmarks.osaka`.", ""])


def _cells(runs: Mapping[str, Json], stays: float, row: str) -> list[Json]:
    return [cell for name, cell in runs.items() if name.rsplit("/", 1)[0] == f"{stays}/{row}"]


def _line(runs: Mapping[str, Json], stays: float, row: str) -> str:
    cells = _cells(runs, stays, row)
    if not cells:
        return f"| `{row}` | 0 | not run |" + " |" * (1 + len(COLUMNS))
    figures = [figure([cell[name] for cell in cells if cell[name] is not None]) for name in COLUMNS]
    chosen = "; ".join(dict.fromkeys(", ".join(f"{k} {v}" for k, v in cell["chosen"].items()) for cell in cells))
    return f"| {' | '.join([f'`{row}`', str(len(cells)), *figures, chosen, figure([cell['cpu_s'] for cell in cells])])} |"


def _verdict(runs: Mapping[str, Json], stays: float) -> str:
    """Which row is ahead, and what detection was worth: on the seeds that all rows have that were run."""
    found = {row: {name: cell["all"] for name, cell in runs.items() if name.startswith(f"{stays}/{row}/")} for row in ROWS}
    by_seed = {row: {name.rsplit("/", 1)[1]: right for name, right in cells.items()} for row, cells in found.items() if cells}
    if not by_seed:
        return ""
    shared = set.intersection(*(set(cells) for cells in by_seed.values()))
    if not shared:
        return "\nNo seed was run by all rows that were run.\n"
    means = {row: sum(cells[seed] for seed in shared) / len(shared) for row, cells in by_seed.items()}
    best = max(means, key=lambda row: means[row])
    said = f"\nAhead: `{best}`, {means[best]:.1f} (mean of the {len(shared)} seeds that all rows above have that were run)."
    if {"continual-maml", "no-detection"} <= means.keys():
        said += f" Detection is worth {means['continual-maml'] - means['no-detection']:+.1f} points."
    return said + "\n"
