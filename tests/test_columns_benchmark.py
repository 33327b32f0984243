"""The benchmark of named columns: what it declares, and that its page says what its cells hold."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.columns import BUCKETS, declared, report
from benchmarks.stream_data import FOLDER, stream
from streamlearn.schema import bucket


def test_columns_with_a_list_of_texts_are_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([[1.5, 1.0], [2.5, 0.0]], np.float32)
    np.savez(
        tmp_path / "flights.npz", x=x, y=np.array([0, 1]), feature_names=np.array(["delay", "to"]), cat_to=np.array(["A", "B"])
    )
    monkeypatch.setenv(FOLDER, str(tmp_path))
    schema, encoded = declared(stream("flights"))
    assert [(column.name, column.kind) for column in schema.columns] == [("delay", "numeric"), ("to", "categorical")]
    np.testing.assert_array_equal(encoded, [[1.5, bucket("B", BUCKETS)], [2.5, bucket("A", BUCKETS)]])


def test_the_page_holds_means_spread_and_difference() -> None:
    accuracies = {"numbers": (70.0, 72.0), "columns": (74.0, 75.0)}
    cells = {
        f"flights/{variant}/100/{seed}": {"accuracy": accuracy, "samples_per_s": 1000.0 + seed}
        for variant, found in accuracies.items()
        for seed, accuracy in enumerate(found)
    }
    row = list(report(cells))[-1]
    assert row == "| flights | 100 | 71.00 ± 1.41 (2 seeds) | 74.50 ± 0.71 (2 seeds) | +3.50 | 1,000 | 1,000 |"
