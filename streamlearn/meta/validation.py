"""How good a warm start is on classes that were held out: as it will be deployed, and beside the nearest class mean."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import Lessons
from streamlearn.meta.corpus import Episodes
from streamlearn.meta.kernels import Loops, after
from streamlearn.models.classifier import Classifier, head_row


def few_shot(network: Classifier, kernel: str, params: Params, lessons: Lessons, loops: Loops) -> Mapping[str, float]:
    """Share of right answers to the queries after each episode's own adaptation."""
    hits = []
    for episode in range(len(lessons.support_y)):
        lesson = lessons.at(episode)
        moved = after(kernel, params, lesson, loops)
        with torch.no_grad():
            answers = network.logits(moved, lesson.query_x[0]).argmax(1)
        hits.append((answers == lesson.query_y[0]).double().mean())
    found = torch.stack(hits)
    return {"accuracy": float(found.mean()), "accuracy_interval": float(1.96 * found.std() / math.sqrt(len(hits)))}


def in_sequence(
    network: Classifier,
    params: Params,
    episodes: Episodes,
    random: np.random.Generator,
    *,
    classes: int,
    shots: int,
    rates: tuple[float, ...],
) -> Mapping[str, float]:
    """Held-out classes one after another, a row at a time, once: share of right answers to their other rows at the end.

    The head alone learns, by plain gradient descent from fresh rows; the best of `rates` is reported, and the nearest class
    mean of the same features beside it.
    """
    held = episodes.corpus.held_out
    chosen = random.permutation(len(held))[:classes].tolist()
    orders = [random.permutation(held[c]) for c in chosen]
    if min(map(len, orders)) <= shots:
        shots = min(map(len, orders)) - 1
    taught = _features(network, params, episodes, np.concatenate([order[:shots] for order in orders]))
    asked = _features(network, params, episodes, np.concatenate([order[shots:] for order in orders]))
    truth = torch.repeat_interleave(torch.arange(len(orders)), torch.tensor([len(order) - shots for order in orders]))
    labels = torch.repeat_interleave(torch.arange(len(orders)), shots)
    drawn = torch.stack([head_row(network.seed, row, network.width) for row in range(len(orders))]).to(taught)
    heads = _taught(drawn, taught, labels, torch.tensor(rates).to(taught))
    found = [float(((asked @ w.T + b).argmax(1).cpu() == truth).double().mean()) for w, b in zip(*heads, strict=True)]
    means = torch.stack([taught[labels == label].mean(0) for label in range(len(orders))])
    nearest = float((torch.cdist(asked, means).argmin(1).cpu() == truth).double().mean())
    best = int(np.argmax(found))
    return {"accuracy": found[best], "learning_rate": rates[best], "nearest_mean": nearest, "classes": float(len(orders))}


def _features(
    network: Classifier, params: Params, episodes: Episodes, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [network.features(params, episodes.rows(part)) for part in np.array_split(rows, max(1, len(rows) // 100))]
        )


def _taught(drawn: Tensor, x: Tensor, labels: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Heads [rates, classes, width] and biases, each after one pass over the rows; labels met so far are in the softmax."""
    w, b = drawn.repeat(len(rates), 1, 1), drawn.new_zeros(len(rates), len(drawn))
    for features, label in zip(x, labels.tolist(), strict=True):
        met = slice(0, label + 1)  # classes come in order
        slope = torch.softmax(w[:, met] @ features + b[:, met], 1)
        slope[:, label] -= 1
        b[:, met] -= rates[:, None] * slope
        w[:, met] -= (rates[:, None] * slope)[:, :, None] * features
    return w, b
