"""Meta-steps are timed on what both sides are given; the checkouts are used and forgotten."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import meta_speed
from benchmarks.meta_reference import Reference
from benchmarks.meta_speed import CELLS, GOAL, compare, deployment, lessons, table
from streamlearn.adapt.unrolled import Lessons

SMALL = {
    "anml": CELLS["anml"]._replace(channels=3, support=4, query=6),
    "oml": CELLS["oml"]._replace(channels=3, support=6, query=8),
}
STUB = """
import torch
class MetaLearingClassification(torch.nn.Module):
    def __init__(self, told, config):
        super().__init__()
        self.net = torch.nn.Module()
        torch.manual_seed(3)
        shapes = [s for i, o in zip([1] + [2] * 5, [2] * 6) for s in ((o, i, 3, 3), (o,))] + [(1000, 18), (1000,)]
        vars = [torch.nn.Parameter(0.1 * torch.randn(s)) for s in shapes]
        self.net.parameters = lambda: vars
        self.seen = []
    def forward(self, *episode):
        self.seen.append([tuple(part.shape) for part in episode])
        return None, [torch.tensor(1.0), torch.tensor({loss})]
"""
FACTORY = """
class ModelFactory:
    @staticmethod
    def get_model(*_, **__):
        return [{"name": "conv2d", "config": {"out-channels": 256, "kernal": 3}}, {"name": "linear", "config": {"in": 2304}}]
"""


def checkout(folder: Path, loss: float) -> Path:
    """What the released OML looks like from outside."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "__init__.py").write_text("")
    (folder / "model" / "meta_learner.py").write_text(STUB.replace("{loss}", str(loss)))
    (folder / "model" / "modelfactory.py").write_text(FACTORY)
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_ours_alone_is_timed_where_there_is_no_checkout(name):
    found = compare(SMALL[name], None, 3)
    assert found["steps"] == 2
    assert min(found["ours_s"]) > 0 < min(found["together_s"])
    assert "ratio" not in found
    assert "not run" in table({name: found, "machine": {}})


def test_an_episode_is_a_trajectory():
    g = torch.Generator().manual_seed(0)
    made = lessons(CELLS["oml"]._replace(shape=(1, 2, 2)), 4, g)
    assert made.support_x.shape == (4, 15, 1, 2, 2)
    assert made.query_x.shape == (4, 30, 1, 2, 2)
    assert (made.support_y.reshape(4, 3, 5) == made.support_y.reshape(4, 3, 5)[:, :, :1]).all()
    assert torch.equal(made.query_y[:, :15], made.support_y)
    assert len(set(lessons(CELLS["anml"], 1, g).support_y.flatten().tolist())) == 1


def test_two_checkouts_with_the_same_names_do_not_mix(tmp_path):
    kept = set(sys.modules), list(sys.path)
    sides = [
        Reference(checkout(tmp_path / str(loss), loss), "oml", channels=2, inner_lr=0.1, outer_lr=0.1) for loss in (2.5, 4.5)
    ]
    assert (set(sys.modules), list(sys.path)) == kept
    x, y = torch.zeros(1, 15, 1, 84, 84), torch.zeros(1, 15, dtype=torch.int64)
    assert [side.step(Lessons(x, y, x, y)) for side in sides] == [2.5, 4.5]
    assert sides[0]._maml.seen == [[(15, 1, 1, 84, 84), (15, 1), (1, 15, 1, 84, 84), (1, 15)]]
    ours = meta_speed.Ours(CELLS["oml"]._replace(channels=2), sides[0].params())
    assert set(ours._params) == set(meta_speed.Ours(CELLS["oml"]._replace(channels=2), None)._params)


def test_what_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model/meta_learner\.py"):
        Reference(tmp_path, "oml", channels=32, inner_lr=0.1, outer_lr=0.1)
    with pytest.raises(ValueError, match="expected 256"):
        Reference(checkout(tmp_path, 1.0), "anml", channels=32, inner_lr=0.1, outer_lr=0.1)


def test_a_goal_that_is_missed_is_called_so():
    cell = {"about": "x", "steps": 9, "ours_s": [1, 2, 3], "together_s": [1, 1, 1], "reference_s": [4, 5, 6],
            "ratio": [2.0, GOAL - 0.1, 3.0], "ratio_together": [5, 5, 5], "losses_apart": 2e-7}  # fmt: skip
    text = table({"oml": cell, "anml": {**cell, "ratio": [2.9, 3.1, 3.3]}, "machine": {}})
    assert "| 2.9 (2.0 to 3.0) | 5.0 (5.0 to 5.0) | 2e-07 | **not met** |" in text
    assert "| met |" in text


def test_deployed_learners_start_from_the_warm_start_and_hold_what_they_hold(monkeypatch):
    monkeypatch.setattr(meta_speed, "WIDTHS", {"tiny": (2, 2), "full": (3, 3)})
    monkeypatch.setattr(meta_speed, "KNOWN", 3)
    found = deployment("tiny", 2)
    assert set(found) == {f"{kind}/{name}" for kind in ("oml", "anml") for name in ("sgd", "er", "nearest-mean")}
    sizes = {name: cell["state_bytes"] for name, cell in found.items()}
    assert sizes["oml/er"] > sizes["oml/sgd"] + 8 * 784 * 4
    assert sizes["oml/sgd"] > 16 * 18 * 4
    text = table({"tiny": found, "machine": {}})
    assert "| tiny | anml | sgd |" in text
    assert "| full | | | not run | | |" in text
