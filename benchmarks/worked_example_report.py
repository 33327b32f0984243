"""Runs of `benchmarks.worked_example` as a table for people."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.scores import figure
from streamlearn.records import Json

ASKED_AFTER = (1, 3, 5, 10, 15)  # drawings of a new character; the last is all of them
ENOUGH = 60.0  # per cent
INTRODUCTION = """# A warm start, and the same daemon cold

Evaluation characters of Omniglot, which meta-training never saw, one after another in random order: 15 drawings each, one
drawing an update, once. Each row is a daemon of its own, `streamlearn run`, whose endpoint is asked for 5 other drawings of
each character. `oml` and `supervised-views` begin from what `streamlearn meta-train` made of the background characters, with
OML (ten minutes of one core) and with `supervised` and `corpus.views` (37; the file is that of `benchmarks.omniglot`, 64
channels, by the same trainer): the head alone learns. `cold` is the same
configuration without a warm start: the same network, drawn at random, all of it plastic (`nearest-mean` and `streaming-lda`
cold take the pixels). A tenth of the drawings of a character after its tenth go to the probe (`probe.share: 0.1`), which the
learner never sees.

*New*: right answers about a character after so many of its own drawings, mean over characters; *to reach 60 %*: after how many
that is 60 or more. *So far*: about all characters met. *60 % of all*: drawings of the stream after which that share of all
drawings that are asked at the end is right, which a learner cannot reach before it has met 60 % of the characters. *Probe*: the
daemon's own mean retention at the end, as the page shows it. `er` holds 1,000 drawings, the others none. Step sizes are the
best of those tried on background characters that were held out of meta-training. Times were taken on a machine that did other
things too: compare `cost` and `meta_speed`. A row that is not there was not run.

![the page when the stream has ended, streaming-lda begun from supervised features](worked_example.png)
"""


def table(runs: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """Markdown, a table for each upstream and number of characters."""
    parts = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n"]
    for streamed in dict.fromkeys(name.rsplit("/", 3)[0] for name in runs):
        parts += _table(streamed, {name: run for name, run in runs.items() if name.startswith(f"{streamed}/")})
    return "\n".join([*parts, "Command: in `benchmarks/worked_example.py`.", ""])


def _table(streamed: str, runs: Mapping[str, Json]) -> list[str]:
    through, _, count = streamed.partition("/")
    first = next(iter(runs.values()))
    marks = sorted({min(n, int(count)) for n in (10, 25, 50, 100, 200, 400, 600)})
    columns = [
        *("row", "meta-steps", "seeds", "step size"),
        *(f"new, {n}" for n in ASKED_AFTER),
        f"to reach {ENOUGH:g} %",
        *(f"so far, {n}" for n in marks),
        *(f"{ENOUGH:g} % of all", "probe", "learn, ms", "answer, ms", "resident, MB", "checkpoint, MB"),
    ]
    where = "a real Kafka" if through == "kafka" else "the embedded log"
    lines = [
        f"## {count} characters through {where}; {first['channels']} channels\n",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for row in dict.fromkeys(name.removeprefix(f"{streamed}/").rsplit("/", 1)[0] for name in runs):
        lines.append(_line(row, [run for name, run in runs.items() if name.startswith(f"{streamed}/{row}/")], marks))
    return [*lines, ""]


def _line(row: str, cells: Sequence[Json], marks: Sequence[int]) -> str:
    new = np.mean([cell["new"] for cell in cells], 0)
    enough = [str(n) for n, right in zip(ASKED_AFTER, new, strict=True) if right >= ENOUGH]
    figures = [
        *(figure([cell["new"][place] for cell in cells]) for place in range(len(ASKED_AFTER))),
        enough[0] if enough else "never",
        *(figure([cell["met"][mark - 1] for cell in cells]) for mark in marks),
        "; ".join(dict.fromkeys(_of_all(cell["met"]) for cell in cells)),
        *(figure([cell[name] for cell in cells]) for name in ("retention", "learn_ms", "answer_ms")),
        *(figure([cell[name] / 1e6 for cell in cells]) for name in ("resident_bytes", "checkpoint_bytes")),
    ]
    rates = ", ".join(dict.fromkeys(str(cell["rate"] or "") for cell in cells))
    steps = ", ".join(dict.fromkeys(f"{cell['start']['steps']:,}" if cell["start"] else "" for cell in cells))
    return f"| `{row}` | {steps} | {len(cells)} | {rates} | {' | '.join(figures)} |"


def _of_all(met: Sequence[float]) -> str:
    """Drawings of the stream after which `ENOUGH` of all characters' drawings are answered right."""
    taught = ASKED_AFTER[-1]
    reached = [taught * (n + 1) for n, right in enumerate(met) if right * (n + 1) / len(met) >= ENOUGH]
    return f"{reached[0]:,}" if reached else "never"
