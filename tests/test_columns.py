"""Named columns through the whole of the program: sources, `check`, `replay`, and which learner runs when none is named."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.testbed.loops import outcomes
from streamlearn.commands import check, replay
from streamlearn.config import Config, configure
from streamlearn.configured_learner import learner, learner_name
from streamlearn.errors import ConfigError
from streamlearn.learners.pool import Pool

COLUMNS = {"amount": "numeric", "carrier": {"type": "categorical", "buckets": 64, "missing": "refuse"}}
SHOWN = "amount: numeric, carrier: categorical of 64 buckets, never missing; other fields: refuse"
RAMPS = {"name": "quantile-ramps", "ramps": 3, "inputs": {"sample_rows": 10}}


def config(state: Path, source: dict[str, Any], **changes: Any) -> Config:
    values = {"state_dir": str(state), "input": {"columns": COLUMNS}, "learner": RAMPS, "serve": {"enabled": False}}
    return configure({"source": source, **values, **changes})


def told(n: int) -> list[tuple[str, str, str]]:
    """amount, carrier and label, which is the carrier's; every tenth amount is missing."""
    draw = random.Random(0)
    rows = [(f"{draw.gauss(0, 1):.3f}", draw.choice("ABC")) for _ in range(n)]
    return [("" if i % 10 == 9 else amount, carrier, f"of {carrier}") for i, (amount, carrier) in enumerate(rows)]


def test_a_file_of_csv_is_checked_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    lines = [",".join(row) for row in told(300)]
    path.write_text("\n".join(["amount,carrier,label", *lines, "1.5,,of A", "x,A,of A"]) + "\n")
    reads = {"type": "file", "path": str(path), "header": True}
    made = config(tmp_path / "state", reads, decode={"format": "csv", "csv": {"columns": ["amount", "carrier", "label"]}})
    facts = check(made)
    assert facts["input"] == f"csv {SHOWN}"
    assert facts["record"] == "flights[0]@0: label 'of A'" or facts["record"].startswith("flights[0]@0: label 'of ")
    found = replay(made, path, journal=None, progress=False)
    assert found["outcomes"] == outcomes(learned=300, rejected=2)
    assert found["accuracy"] > 0.9


def test_rows_of_an_npz_file_are_the_columns_in_order(tmp_path: Path) -> None:
    rows = told(300)
    x = np.array([[float(amount or "nan"), "ABC".index(carrier)] for amount, carrier, _ in rows], np.float32)
    path = tmp_path / "flights.npz"
    np.savez(path, x=x, y=np.array([label for _, _, label in rows]))
    made = config(tmp_path / "state", {"type": "file", "path": str(path)}, decode={"format": "tensor"})
    assert check(made)["record"].startswith("flights[0]@0: label 'of ")
    found = replay(made, path, journal=None, progress=False)
    assert found["outcomes"] == outcomes(learned=300)
    assert found["accuracy"] > 0.9


def test_a_generator_fills_numeric_columns_in_order(tmp_path: Path) -> None:
    columns = {f"x{i}": "numeric" for i in range(4)}
    source = {"type": "synthetic", "features": 4, "records": 10}
    facts = check(config(tmp_path / "state", source, input={"columns": columns}))
    assert facts["record"].startswith("synthetic[0]@0: label ")


def test_a_first_record_that_does_not_fit_the_columns_is_said_so(tmp_path: Path) -> None:
    source = {"type": "synthetic", "features": 4, "records": 10}
    with pytest.raises(
        ConfigError, match=r"has 4 values, expected one for each of 2 columns.*check decode.format and input.columns"
    ):
        check(config(tmp_path / "state", source))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "pool"),
        ({"input": {"shape": [8, 8]}}, "pool"),
        ({"learner": {"name": "sgd"}}, "sgd"),
        ({"input": {"shape": [28, 28]}, "model": {"name": "conv"}}, "la-maml"),
        ({"input": {"shape": [28, 28]}, "warm_start": "characters.safetensors"}, "la-maml"),
    ],
)
def test_without_a_name_the_pool_learns_what_it_has_a_place_for(changes: dict[str, Any], name: str, tmp_path: Path) -> None:
    made = config(tmp_path / "state", {"type": "log"}, **{"learner": {}, **changes})
    assert made.learner.name == changes.get("learner", {}).get("name", "auto")
    assert learner_name(made) == name


def test_check_says_what_auto_is_and_its_keys_are_the_pools(tmp_path: Path) -> None:
    source = {"type": "synthetic", "features": 4, "records": 10}
    made = config(tmp_path / "state", source, input={"shape": [4]}, learner={"gate": {"quantile": 0.1}})
    assert check(made)["learner"] == "pool, chunk of 1"
    pool = learner(made)
    assert isinstance(pool, Pool)
    assert pool.settings.gate.quantile == 0.1
    with pytest.raises(ConfigError, match=r"learner.glances is not a known key"):
        learner(config(tmp_path / "state", source, learner={"glances": 3}))


def test_a_warm_start_is_for_arrays(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"warm_start is given beside input.columns"):
        learner(config(tmp_path / "state", {"type": "log"}, learner={}, warm_start="x.safetensors"))
