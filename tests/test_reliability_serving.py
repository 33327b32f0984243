"""The scenarios of the table's group `serving`, each once and small."""

import pytest

from benchmarks.reliability import serving
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.table import SCENARIOS


@pytest.mark.parametrize("one", [each for each in SCENARIOS if each.group == "serving"], ids=lambda each: each.name)
def test_each_scenario_is_survived(one, tmp_path):
    assert one.play.__module__ == serving.__name__
    bench = Bench(tmp_path, quick=True)
    bench.room("one")
    try:
        assert one.play(bench).survived
    finally:
        bench.close()
