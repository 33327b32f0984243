"""The four gradient kernels behind one signature: parameters and episodes → loss, meta-gradient, what was measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from streamlearn.adapt.flow import flow_gradient, flowed
from streamlearn.adapt.implicit import Proximal, anchored, implicit_meta
from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import (
    Lessons,
    Meta,
    Parts,
    Plan,
    adapted,
    first_order,
    interpolated,
    labelled,
    second_order,
)

LOG_DURATION = "flow.log_duration"


class Step(NamedTuple):
    """One meta-gradient, and what was measured on the way."""

    loss: float
    grads: Params
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Loops:
    """All that kernels are told beside parameters and episodes."""

    parts: Parts
    plan: Plan
    order: int
    batched: bool
    proximal: Proximal
    tolerance: float


def unrolled(params: Params, lessons: Lessons, loops: Loops) -> Step:
    """MAML, ANIL, OML and ANML by the order; FOMAML is order 1."""
    return _meaned(second_order if loops.order == 2 else first_order, params, lessons, loops)


def interpolate(params: Params, lessons: Lessons, loops: Loops) -> Step:
    """Reptile."""
    return _meaned(interpolated, params, lessons, loops)


def implicit(params: Params, lessons: Lessons, loops: Loops) -> Step:
    """iMAML."""
    residuals: list[float] = []

    def gradient(parts: Parts, params: Params, lessons: Lessons, _: Plan) -> Meta:
        meta, residual = implicit_meta(parts, params, lessons, loops.proximal)
        residuals.append(residual)
        return meta

    return _meaned(gradient, params, lessons, loops)._replace(measures={"cg_residual": max(residuals)})


def _meaned(gradient: Callable[[Parts, Params, Lessons, Plan], Meta], params: Params, lessons: Lessons, loops: Loops) -> Step:
    count = len(lessons.support_y)
    parts = [lessons] if loops.batched else [lessons.at(episode) for episode in range(count)]
    metas = [gradient(loops.parts, params, part, loops.plan) for part in parts]
    grads = {name: torch.stack([meta.grads[name] for meta in metas]).mean(0) for name in params}
    return Step(float(torch.stack([meta.loss for meta in metas]).mean()), grads, {})


def flow(params: Params, lessons: Lessons, loops: Loops) -> Step:
    """COMLN: features of all episodes in one pass, each flow on its own, in float64, and back through the features once."""
    x = torch.cat([lessons.support_x, lessons.query_x], 1)
    count, rows = lessons.support_y.shape
    features, back, *_ = torch.func.vjp(lambda p: loops.parts.prepare(p, x.flatten(0, 1)), params)
    split = features.detach().double().reshape(count, -1, features.shape[1])
    head, duration = loops.parts.begin(params)["head.weight"].double(), float(params[LOG_DURATION].exp())
    results = [
        flow_gradient((f[:rows], sy), (f[rows:], qy), head, duration, tolerance=loops.tolerance)
        for f, sy, qy in zip(split, lessons.support_y, lessons.query_y, strict=True)
    ]
    ends = torch.cat([torch.cat([each.support, each.query]) for each in results]) / count
    grads = dict(back(ends.to(features))[0])
    slope = torch.stack([each.duration for each in results]).mean() * duration
    grads[LOG_DURATION] = slope.to(params[LOG_DURATION])
    return Step(float(torch.stack([each.loss for each in results]).mean()), grads, {"duration": duration})


KERNELS: Mapping[str, Callable[[Params, Lessons, Loops], Step]] = {
    "unrolled": unrolled,
    "interpolate": interpolate,
    "implicit": implicit,
    "flow": flow,
}


def after(kernel: str, params: Params, lesson: Lessons, loops: Loops) -> Params:
    """All parameters as they are after one episode's inner loop, by the kernel's own rule."""
    parts, support = loops.parts, labelled(loops.parts.prepare(params, lesson.support_x[0]), lesson.support_y[0])
    if kernel == "implicit":
        fast = anchored(lambda p: parts.loss({**params, **p}, support), parts.begin(params), loops.proximal)
        return {**params, **fast}
    if kernel == "flow":
        begin, duration = parts.begin(params), float(params[LOG_DURATION].exp())
        targets = torch.nn.functional.one_hot(support.y, len(begin["head.bias"])).double()
        head = flowed(support.x.double(), targets, begin["head.weight"].double(), duration, tolerance=loops.tolerance)
        return {**params, **begin, "head.weight": head.to(support.x)}
    return {**params, **adapted(parts, params, support, loops.plan)}
