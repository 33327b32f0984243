"""The crash matrix in small, on the embedded log: `make crash-matrix` is the whole. And the table that its rows go into."""

import json
from pathlib import Path

import pytest

from benchmarks.reliability import crash, table
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.table import Outcome, Scenario

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [
    "turn: a journal entry half written",
    "turn: the head has grown",
    "turn: learned, not scored",
    "late: a label joined, not learned",
    "late: what expires is written, nothing expired",
    "late: expired, not counted",
    "probe: a record was diverted",
    "publishing: half a snapshot",
    "checkpoint: manifest half written",
    "checkpoint: renamed, folder not synced",
    "checkpoint: renamed, nothing committed",
]


@pytest.fixture(scope="module")
def bench(_forks, tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("reliability"), quick=True, forks=_forks)
    yield made
    made.close()


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_a_named_point_it_ends_as_if_it_had_not_been(bench, name):
    (point,) = [each for each in crash.POINTS if each.name == name]
    bench.room(name.replace(":", "").replace(" ", "-"))
    assert crash.killed_at(bench, point).runs in (1, 2), "how many checkpoints a life takes is a matter of load"


def scenario(play):
    return Scenario("crash", "a fault", "by hand | on purpose", play)


def test_a_row_is_written_and_replaced_and_a_claim_that_fails_gets_its_row_too(tmp_path):
    def fails(_):
        raise AssertionError("three records were lost\nand more")

    for play in (lambda _: Outcome("as before", 7, [0.5, 1.5]), fails):
        table.record(scenario(play), table.played(scenario(play), None), command="make it", docs=tmp_path)
        page = (tmp_path / "reliability.md").read_text()
        (row,) = json.loads((tmp_path / "results" / "reliability.json").read_text())
        if play is not fails:
            assert "| a fault | by hand \\| on purpose | 7 | as before | 1.00 s (1.50 s) |" in page
    assert row["survived"] is False
    assert "| a fault | by hand \\| on purpose | 1 | NOT survived: three records were lost | – |" in page


def test_the_page_is_what_its_rows_say():
    rows = json.loads((DOCS / "results" / "reliability.json").read_text())
    assert table.page(rows) == (DOCS / "reliability.md").read_text()
    assert {row["group"] for row in rows} <= set(table.GROUPS)
