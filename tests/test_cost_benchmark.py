"""The cost benchmark measures whole calls of what it names, and says what it found in a table and a plot."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cost
from benchmarks.cells import known
from benchmarks.cost_report import draw, table


def point(us: float, **more: int) -> dict[str, object]:
    return {"us": us, "quartiles": [us - 1, us + 2], "state_bytes": 3 << 20, **more}


def test_the_table_is_in_order_of_size_and_says_resident_memory_where_it_is_known() -> None:
    points = {
        "labels/pool/1000": point(2500.0),
        "labels/pool/20": point(10.0),
        "stream/pool/10": point(5, resident_bytes=7 << 20),
    }
    text = table(points, {})
    assert "| `pool` | 1,000 | 2,500 (2,499 to 2,502) | 3.0 |  |" in text
    assert "| `pool` | 10 | 5 (4 to 7) | 3.0 | 7 |" in text
    assert text.index("| `pool` | 20 |") < text.index("| `pool` | 1,000 |")
    assert "la-maml" not in text


def test_the_plot_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    points = {f"memory/la-maml/{rows}": point(10.0 + rows) for rows in (200, 1000)}
    for name in ("a.svg", "b.svg"):
        draw(points, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("name", ["la-maml", "pool"])
def test_all_labels_are_in_the_softmax_before_the_first_is_learned(name: str) -> None:
    learner = cost.made(name, cost.Size({}, labels=40))
    assert learner.predict(np.zeros((1, cost.COLUMNS), np.float32)).shape == (1, 40)


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cost.json"
    monkeypatch.setattr(
        cost, "GROWS", {"memory": {"la-maml": {rows: cost.Size({"memory": {"rows": rows}}) for rows in (5, 30)}}}
    )
    monkeypatch.setattr(
        sys, "argv", ["cost", "--out", str(out), "--learners", "la-maml", "--grows", "memory", "stream", "--rows", "200"]
    )
    monkeypatch.setattr(cost, "CALL", 20)
    cost.main()
    first = known(out)
    assert set(first) == {"memory/la-maml/5", "memory/la-maml/30", *(f"stream/la-maml/{n}" for n in range(20, 201, 20))}
    assert all(cell["us"] > 0 and cell["resident_bytes"] > 0 for name, cell in first.items() if name.startswith("stream"))
    assert first["memory/la-maml/30"]["state_bytes"] - first["memory/la-maml/5"]["state_bytes"] >= 25 * 4 * cost.COLUMNS
    cost.main()
    assert known(out) == first
