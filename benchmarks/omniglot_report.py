"""Cells of `benchmarks.omniglot` as tables for people."""

from collections.abc import Mapping

from benchmarks.omniglot_plan import CONTROL, HEADS, LENGTHS, LOOK_AHEAD, MEMORY, PUBLISHED, TRUNKS, WIDTHS
from benchmarks.scores import figure, mean_and_spread
from streamlearn.records import Json

Runs = Mapping[str, Json]

INTRODUCTION = f"""# Characters one after another

Omniglot at 28 by 28. A trunk is trained on the 964 background characters, a tenth of them held out, and then stays as it is.
A learner of the product learns 600 of the 659 evaluation characters on its features: character after character in random
order, 15 drawings each, one pass; the softmax is over the characters met so far. Figures are per cent of 5 other drawings of
every character met so far, mean ± standard deviation over seeds, all lengths from the same pass. A seed draws the trunk, what
is held out, the order and the drawings. Step sizes are chosen once, on 50 held-out background characters, not for each length.

`sgd`, `er` and `nearest-mean` take one drawing an update, `la-maml` {LOOK_AHEAD} in as many inner steps. `er` and `la-maml`
hold {MEMORY:,} drawings and replay 10 an update; the others hold none. `nearest-mean`, the class mean of the same
features, needs no gradient and cannot forget: a row that does not beat it says so ("beats": by the mean over seeds).

Where the column says fewer than three seeds, no more were run; the same command goes on. Narrow trunks take a fiftieth of the
published 20,000 steps or less: their rows show that the path works and what the control is worth, not what the methods can.

Trunks: `random` as drawn; `supervised` on all training characters at once; `supervised-views` the same and longer, on drawings
that are moved, turned and stretched a little whenever drawn, and turned by quarters into further characters; `oml`; `anml-1`
and `anml-2` by the order of the meta-gradient (1 as in the released code, 2 through the inner loop).
"""
STREAM_HEAD = (
    "| trunk | head | seeds | step size | " + " | ".join(map(str, LENGTHS)) + " | taught drawings, 600 | beats nearest mean |\n"
)
FEATURE_HEAD = (
    "| trunk | seeds | steps | CPU s | features | active an image | active overall | dead | 5 nearest neighbours |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)
FEATURES = """### Features

Of the 12,000 drawings of the stream, in per cent of units. Active: above a hundredth of the largest activation of the trunk;
overall: its mean over drawings is; dead: on no drawing. Neighbours: right answers to the asked drawings of all 600 characters
by vote of the 5 nearest of the 9,000 taught ones. ANML's gate is never quite closed: what it closes is small, not 0.
"""


def table(runs: Runs, machine: Mapping[str, str]) -> str:
    """Markdown, every width; where nothing was run it says so."""
    parts = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n", _published()]
    for width, plan in WIDTHS.items():
        parts.append(f"## {width.capitalize()}: {plan.about}\n")
        if any(name.startswith(f"{width}/") for name in runs):
            lines = [_stream_line(runs, width, trunk, head) for trunk in TRUNKS for head in HEADS]
            parts.append(STREAM_HEAD + "|---" * (6 + len(LENGTHS)) + "|\n" + "\n".join(lines) + "\n")
            parts.append(_verdict(runs, width))
            lines = [_feature_line(runs, width, trunk, kind) for trunk in TRUNKS for kind in ("before", "after")]
            parts.append(FEATURES + "\n" + FEATURE_HEAD + "\n".join(line for line in lines if line) + "\n")
        else:
            parts.append("**Not run.** " + _command(width) + "\n")
    return "\n".join([*parts, "Commands: in `benchmarks/omniglot.py`.", ""])


def _command(width: str) -> str:
    reason, device = ("There was no GPU: ", "--device cuda ") if width == "full" else ("", "")
    return f"{reason}`python -m benchmarks.omniglot {device}--width {width}` runs it, and goes on where it was stopped."


def _published() -> str:
    head = "| published, **full width** | " + " | ".join(map(str, LENGTHS)) + " |\n" + "|---" * (1 + len(LENGTHS)) + "|\n"
    lines = [f"| {who} | {' | '.join(said.get(length, '') for length in LENGTHS)} |" for who, said in PUBLISHED]
    about = "Their head learns by Adam, and its step size is chosen for each number of characters."
    return head + "\n".join(lines) + f"\n\n{about}\n"


def _cells(runs: Runs, width: str, trunk: str, part: str) -> dict[int, Json]:
    """By seed."""
    return {int(n.rsplit("/", 1)[1]): cell for n, cell in runs.items() if n.rsplit("/", 1)[0] == f"{width}/{trunk}/{part}"}


def _stream_line(runs: Runs, width: str, trunk: str, head: str) -> str:
    cells = list(_cells(runs, width, trunk, head).values())
    if not cells:
        return f"| `{trunk}` | `{head}` | 0 | not run |" + " |" * (2 + len(LENGTHS))
    rates = ", ".join(dict.fromkeys(cell["rate"] or "" for cell in cells))
    figures = [figure([cell["test"][str(length)] for cell in cells]) for length in LENGTHS]
    train = figure([cell["train"][str(LENGTHS[-1])] for cell in cells])
    beats = "" if head == CONTROL else _beats(runs, width, trunk, head)
    return f"| {' | '.join([f'`{trunk}`', f'`{head}`', str(len(cells)), rates, *figures, train, beats])} |"


def _beats(runs: Runs, width: str, trunk: str, head: str) -> str:
    """At which lengths, on the seeds that both have."""
    ours, control = (_cells(runs, width, trunk, part) for part in (head, CONTROL))
    both = sorted(ours.keys() & control.keys())
    if not both:
        return "no control"
    ahead = [n for n in map(str, LENGTHS) if sum(ours[s]["test"][n] - control[s]["test"][n] for s in both) > 0]
    return "**no**" if not ahead else "yes" if len(ahead) == len(LENGTHS) else "at " + ", ".join(ahead) + " only"


def _verdict(runs: Runs, width: str) -> str:
    """The best trunk and head at the last length."""
    means = {
        (trunk, head): mean_and_spread([cell["test"][str(LENGTHS[-1])] for cell in cells.values()])[0]
        for trunk in TRUNKS
        for head in HEADS
        if (cells := _cells(runs, width, trunk, head))
    }
    (trunk, head), best = max(means.items(), key=lambda item: item[1])
    goal = (
        " The goal at full width is 75."
        if width == "full"
        else " This is no full width: published figures are beside, not against."
    )
    return f"Best of what was run, at {LENGTHS[-1]} characters: `{trunk}` with `{head}`, {best:.1f}.{goal}\n"


def _feature_line(runs: Runs, width: str, trunk: str, kind: str) -> str:
    cells = [cell for cell in _cells(runs, width, trunk, "features").values() if kind in cell]
    if not cells:
        return ""
    gated = any("before" in cell for cell in cells)
    shown = {"before": "before the gate", "after": "after the gate" if gated else "no gate"}[kind]
    figures = [figure([cell[kind][name] for cell in cells]) for name in ("active", "active_overall", "dead", "neighbours")]
    steps = ", ".join(dict.fromkeys(f"{cell['steps']:,}" for cell in cells))
    steps += f" (best after {', '.join(str(cell['best_after']) for cell in cells)})" if cells[0]["held_out"] else ""
    seconds = figure([cell["cpu_s"] for cell in cells], 0)
    return f"| {' | '.join([f'`{trunk}`', str(len(cells)), steps, seconds, shown, *figures])} |"
