"""The accuracy matrix as a heat map, and what it means for a task over time."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from streamlearn.records import Json


def draw(found: Mapping[str, Json], path: Path) -> None:
    """Write the picture of `report.figures`."""
    matrix = np.mean(found["matrices"], axis=0)
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        shown = left.imshow(matrix, vmin=0, vmax=100, cmap="viridis", aspect="equal")
        left.set(title="accuracy on each task after each task, %", xlabel="task asked", ylabel="tasks learned")
        tasks = range(len(matrix))
        ticks = [t for t in tasks if t % max(1, len(matrix) // 5) == 0]
        left.set_xticks(ticks, [f"{t + 1}" for t in ticks])
        left.set_yticks(ticks, [f"{t + 1}" for t in ticks])
        figure.colorbar(shown, ax=left, shrink=0.85)
        numbers = [t + 1 for t in tasks]
        for i, each in enumerate(np.array(found["matrices"])):
            so_far = [each[t, : t + 1].mean() for t in tasks]
            right.plot(
                numbers, so_far, color="tab:blue", alpha=0.5, lw=1, label="all tasks so far, each seed" if i == 0 else None
            )
        right.plot(numbers, matrix.diagonal(), color="tab:green", marker="o", ms=3, label="a task, right after it")
        right.plot(
            numbers, np.mean(found["final"], axis=0), color="tab:red", marker="s", ms=3, label="a task, after the last one"
        )
        right.set(
            title=f"{found['data']}, mean of {len(found['seeds'])} seed(s)", xlabel="task", ylabel="accuracy, %", ylim=(0, 100)
        )
        right.set_xticks([t + 1 for t in ticks])
        right.grid(alpha=0.3)
        right.legend(loc="lower right")
        figure.savefig(path, dpi=110)
