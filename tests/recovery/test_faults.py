"""Broker faults and data faults in small; `make broker-faults` and `make data-faults` are the whole, and write their rows."""

import gc
from collections.abc import Iterator

import pytest

from benchmarks.reliability import broker, data
from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.reliability.table import SCENARIOS, Scenario
from benchmarks.testbed.forks import Forks

assert broker
assert data
LONG = {"answers that drip", "codecs", "killed and started again"}  # shown by others here, or by tests of the connector


def of(group: str) -> list[Scenario]:
    """Those on the mock cluster are in `tests/test_kafka_faults.py`."""
    return [each for each in SCENARIOS if each.group == group and each.name not in LONG and "mock:" not in each.name]


@pytest.fixture(scope="module")
def bench(_forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("faults"), quick=True, forks=_forks)
    yield made
    made.close()


# The scenario's own client, in this process, forgets sockets of a broker that is killed; the program is another process.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.kafka
@pytest.mark.parametrize("scenario", of("broker"), ids=lambda scenario: scenario.name)
def test_a_fault_of_the_broker_is_survived(bench: Bench, scenario: Scenario) -> None:
    bench.room(scenario.name.replace(" ", "-"))
    try:
        scenario.play(bench)
    except NotHereError as error:
        pytest.skip(str(error))
    finally:
        gc.collect()  # here, where the filter holds


@pytest.mark.parametrize("scenario", of("data"), ids=lambda scenario: scenario.name)
def test_a_fault_of_the_data_is_survived(bench: Bench, scenario: Scenario) -> None:
    bench.room(scenario.name.replace(" ", "-"))
    scenario.play(bench)
