"""Settings of the sliding look-ahead that were tried, and those with which it is taken apart."""

from typing import Any

Options = dict[str, Any]


def _tried(
    window: int,
    update_every: int,
    replay_rows: int,
    *,
    inner_lr: float = 0.15,
    recall: float = 0.3,
    fast_share: float = 0.5,
    leak: float = 0.02,
) -> Options:
    rows = {"window": window, "update_every": update_every, "replay_rows": replay_rows}
    speeds = {"inner_lr": inner_lr, "recall": recall, "fast_share": fast_share, "leak": leak}
    return {**rows, **speeds, "inner_clip_norm": None, "averaging": 0.0}


def _bounded(norm: float | None, replay_rows: int = 8) -> Options:
    return {**_tried(6, 1, replay_rows, inner_lr=0.1, recall=0.6, fast_share=0.25), "inner_clip_norm": norm}


NOT_AVERAGED: Options = _bounded(8.0, 12)
RECIPE: Options = {**NOT_AVERAGED, "averaging": 0.999}
"""What the paper's streams and CIFAR-100 are run with: one setting for all."""

CANDIDATES: dict[str, tuple[str, Options]] = {
    "4 rows, every row, 8 replayed": ("first half", _tried(4, 1, 8)),
    "8 rows, every row, 4 replayed": ("first half", _tried(8, 1, 4)),
    "6 rows, every row, 8 replayed": ("first half", _tried(6, 1, 8)),
    "8 rows, every row, 8 replayed": ("first half", _tried(8, 1, 8)),
    "8 rows, every row, 4 replayed, recall 0.15": ("first half", _tried(8, 1, 4, recall=0.15)),
    "8 rows, every row, 4 replayed, step sizes from 0.1": ("first half", _tried(8, 1, 4, inner_lr=0.1)),
    "4 rows, every 2nd, 4 replayed (quick, as in the pool)": ("whole", _tried(4, 2, 4)),
    "8 rows, every row, 4 replayed, step sizes from 0.1 (whole)": ("whole", _tried(8, 1, 4, inner_lr=0.1)),
    "8 rows, every row, 8 replayed, step sizes from 0.1 (whole)": ("whole", _tried(8, 1, 8, inner_lr=0.1)),
    "6 rows, every row, 8 replayed, step sizes from 0.1": ("whole", _tried(6, 1, 8, inner_lr=0.1)),
    "6 rows, every row, 8 replayed, step sizes from 0.1, recall 0.6": ("whole", _tried(6, 1, 8, inner_lr=0.1, recall=0.6)),
    "the same, recall 0.6, fast weights by 0.25": ("whole", _bounded(None)),
    "the same, recall 0.6, leak 0.05": ("whole", _tried(6, 1, 8, inner_lr=0.1, recall=0.6, leak=0.05)),
    "the same, recall 1": ("whole", _tried(6, 1, 8, inner_lr=0.1, recall=1.0)),
    **{
        f"the same, rows' gradients bounded by {bound:g}": ("whole", _bounded(bound))
        for bound in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0)
    },
    "bounded by 4, recall 1": ("whole", _bounded(4.0) | {"recall": 1.0}),
    "bounded by 8, recall 1": ("whole", _bounded(8.0) | {"recall": 1.0}),
    "bounded by 4, 12 replayed": ("whole", _bounded(4.0, 12)),
    "bounded by 8, 12 replayed": ("whole", NOT_AVERAGED),
    "bounded by 16, 12 replayed": ("whole", _bounded(16.0, 12)),
    "bounded by 4, 16 replayed": ("whole", _bounded(4.0, 16)),
    "bounded by 8, 12 replayed, slow weights averaged by 0.998": ("whole", {**NOT_AVERAGED, "averaging": 0.998}),
    "bounded by 8, 12 replayed, slow weights averaged by 0.999 (chosen)": ("whole", RECIPE),
    "4 rows, every row, 12 replayed, step sizes from 0.1": ("whole", _tried(4, 1, 12, inner_lr=0.1)),
}
"""What `benchmarks.sliding tuning` scores, and on how much of each stream."""

PARTS: dict[str, Options] = {
    "whole": {},
    "no stored answers": {"recall": 0.0},
    "step sizes as they start": {"meta_lr": 0.0},
    "no stored answers, step sizes as they start": {"recall": 0.0, "meta_lr": 0.0},
    "no replay": {"replay_rows": 0},
    "window of 1 row": {"window": 1},
    "window of 4 rows": {"window": 4},
    "every 4th row": {"update_every": 4},
    "1 replayed row": {"replay_rows": 1},
    "8 replayed rows": {"replay_rows": 8},
    "rows' gradients not bounded": {"inner_clip_norm": None},
    "rows' gradients bounded by 16": {"inner_clip_norm": 16.0},
    "memory of 50 rows": {"memory": {"rows": 50}},
    "slow weights averaged": {"averaging": 0.999},
    "fast weights from scratch with each row": {"leak": 1.0},
    "replay alone": {"window": 1, "recall": 0.0, "meta_lr": 0.0},
    "replay and stored answers": {"window": 1, "meta_lr": 0.0},
    "replay and learned step sizes": {"window": 1, "recall": 0.0},
}
"""What `benchmarks.sliding ablation` runs: changes to the recipe before the slow weights were averaged."""
