"""What every learner with a compiled form owes, beside that both forms agree: see the files of each kernel."""

from typing import Any

import pytest

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.learners.look_ahead import CMAML, LaMAML, Sync
from streamlearn.learners.replay import MER, LaER
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from tests.oracles.kernels import gap, pair, stream

COMPILED = (LaMAML, Sync, CMAML, MER, SlidingLookAhead)
CANNOT_BE: tuple[tuple[Any, dict[str, Any], ModelSettings], ...] = (
    *((cls, {"max_contexts": 2}, ModelSettings()) for cls in COMPILED),
    *((cls, {}, ModelSettings(name="conv", channels=2, hidden=(4,))) for cls in COMPILED),
    (LaMAML, {"second_order": True}, ModelSettings()),
    (LaMAML, {"inner_clip": 1.0}, ModelSettings()),
)


@pytest.mark.parametrize("cls", COMPILED)
def test_a_checkpoint_goes_on_under_another_kernel_only_when_asked(cls: Any) -> None:
    task = Task((6,), model=ModelSettings(hidden=(5,)))
    fast, plain = pair(cls, task)
    fast.learn(stream(20, 6, 3, seed=0))
    with pytest.raises(CheckpointError, match="learned by the kernel 'numba', this learner uses 'torch'"):
        plain.restore(fast.state())
    allowed = cls(cls.Settings(kernel="torch", allow_kernel_change=True), task)
    allowed.restore(fast.state())
    assert gap(allowed, fast) == 0


@pytest.mark.parametrize(("cls", "options", "model"), CANNOT_BE)
def test_what_cannot_be_compiled_runs_plain_or_is_refused(cls: Any, options: dict[str, Any], model: ModelSettings) -> None:
    task = Task((6, 6), model=model)
    assert cls(cls.Settings(**options), task).kernel == "torch"
    with pytest.raises(ConfigError, match=r"learner\.kernel is 'numba'"):
        cls(cls.Settings(kernel="numba", **options), task)


@pytest.mark.parametrize("cls", COMPILED)
def test_compiling_is_the_default_where_it_can_be_done(cls: Any) -> None:
    assert cls(cls.Settings(), Task((6,))).kernel == "numba"


def test_la_er_has_no_compiled_form() -> None:
    assert LaER(LaER.Settings(), Task((6,))).kernel == "torch"
