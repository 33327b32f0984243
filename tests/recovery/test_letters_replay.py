"""Dead letters that are mended and sent again, also by a process that dies in the midst of it: each is learned once."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import connectors
from benchmarks.testbed.fakes import MemorySink
from benchmarks.testbed.forks import Forks, Life
from benchmarks.testbed.small import configured, samples, settled
from streamlearn.admit import REPLAYS, dead_letter
from streamlearn.errors import DecodeError
from streamlearn.inspection import inspected
from streamlearn.letters import letters as listed
from streamlearn.letters import send_again
from streamlearn.records import Message, Record

BAD = {7: b"not json", 20: b'{"features": [1.0], "label": "00"}', 33: b'{"features": [0, 0, 0, 0, 0, 0], "label": 0.5}'}
KILLED = "benchmarks.reliability.sabotage:kill_at"


class Place(NamedTuple):
    """Where records and letters are: settings of source and of the sink of letters, and the class that writes to the source."""

    source: dict[str, Any]
    letters: dict[str, Any] | None
    sink: str
    partition: str

    def write(self, values: list[bytes]) -> None:
        keys = {name: value for name, value in self.source.items() if name not in ("type", "topics")}
        topics = self.source.get("topics")
        sink = connectors.open_sink(self.source["type"], keys | ({"topic": topics[0]} if topics else {}))
        sink.write([Message(value) for value in values])
        sink.flush(10.0)
        sink.close()

    def held(self) -> list[Record]:
        source = connectors.open_source(self.source["type"], {k: v for k, v in self.source.items() if k != "type"})
        source.seek({})
        ends, found = source.ends(), list[Record]()
        while sum(source.positions().values()) < sum(ends.values()):
            found += source.poll(1000, 0.5)
        source.close()
        return found


@pytest.fixture(params=["log", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "log":
        return Place({"type": "log", "path": str(tmp_path / "s.sqlite")}, None, "connectors.log:LogSink", "s[0]")
    address, topics = request.getfixturevalue("kafka"), [request.getfixturevalue("kafka_topic")(1) for _ in range(2)]
    there = {"type": "kafka", "bootstrap_servers": address}
    sink = {**there, "topic": topics[1]}
    return Place({**there, "topics": topics[:1]}, sink, "connectors.kafka_sink:KafkaSink", f"{topics[0]}[0]")


@pytest.fixture
def daemon(place: Place, tmp_path: Path, forks: Forks) -> tuple[Life, Path]:
    """It has learned all but three records, and goes on."""
    values = samples(40)
    for at, value in BAD.items():
        values[at] = value
    place.write(values)
    changes = {"dead_letters": {"sink": place.letters}} if place.letters else {}
    config = configured(tmp_path / "state", place.source, checkpoint={"every_records": 10}, **changes)
    life = forks.start("run", config)
    life.until(lambda: settled(tmp_path / "state") >= 40, "the first forty")
    return life, config


def again(forks: Forks, config: Path, places: list[str], value: bytes | None = None, **how: Any) -> Life:
    """`dlq replay`, with a mended value."""
    mended = config.with_name("mended")
    mended.write_bytes(value or b"")
    return forks.run("dlq", "replay", config, *places, *(["--value", mended] if value else []), **how)


def letters(forks: Forks, config: Path) -> list[dict[str, Any]]:
    life = forks.run("dlq", "list", config, "--json")
    assert life.code == 0, life.stderr
    return [json.loads(line) for line in life.stdout.splitlines()]


def ended(life: Life, place: Place, config: Path) -> dict[str, Any]:
    """What a daemon has saved when it has read all there is."""
    held = len(place.held())
    life.until(lambda: settled(config.with_name("state")) >= held, "all of it")
    life.stop()
    found = inspected(config.with_name("state"))
    assert sum(found["positions"].values()) == held
    assert found["counts"]["learned"] + found["pending"] + sum(found["rejected"].values()) + found["counts"]["skipped"] == held
    return found


def test_a_replay_that_dies_is_done_again_and_each_letter_is_learned_once(
    place: Place, daemon: tuple[Life, Path], forks: Forks
) -> None:
    """It dies when nothing was sent, when all is on its way, and when all has arrived; then it is done again, once twice."""
    life, config = daemon
    points = (("write", "before"), ("flush", "before"), ("flush", "after"))
    for at, (call, when), value in zip(BAD, points, samples(3, seed=8), strict=True):
        name = [f"{place.partition}@{at}"]
        dead = again(forks, config, name, value, first=(KILLED, [f"{place.sink}.{call}", when, 1]))
        assert dead.code == -9
        assert again(forks, config, name, value).code == 0
    assert again(forks, config, name, value).code == 0
    found = ended(life, place, config)
    arrived = Counter(dict(record.headers).get(REPLAYS) for record in place.held()[40:])
    assert set(arrived) == {f"{place.partition}@{at}".encode() for at in BAD}
    assert arrived[f"{place.partition}@33".encode()] == 3
    assert found["counts"]["learned"] + found["pending"] == 40
    assert found["counts"]["skipped"] == arrived.total() - len(BAD)


def test_a_letter_that_was_mended_badly_is_mended_again_and_learned_once(
    place: Place, daemon: tuple[Life, Path], forks: Forks
) -> None:
    """By its own place, or by that of the letter which the bad mend became: they stand for one record."""
    life, config = daemon
    first = f"{place.partition}@7"
    assert again(forks, config, [first], b"still not json").code == 0
    life.until(lambda: len(letters(forks, config)) == 4, "a letter of the bad mend")
    assert letters(forks, config)[-1]["place"] == f"{place.partition}@40"
    good = samples(1, seed=9)[0]
    for name in (first, f"{place.partition}@40", first):
        assert again(forks, config, [name], good).code == 0
    found = ended(life, place, config)
    assert found["counts"]["learned"] + found["pending"] == 40 - len(BAD) + 1
    assert (sum(found["rejected"].values()), found["counts"]["skipped"]) == (4, 2)


def test_all_letters_are_sent_again_as_they_were(place: Place, daemon: tuple[Life, Path], forks: Forks) -> None:
    """What cannot be learned still cannot, and its letter still is one."""
    life, config = daemon
    sent = again(forks, config, [])
    assert sent.stdout.split() == [f"{place.partition}@{at}" for at in BAD]
    found = ended(life, place, config)
    assert sum(found["rejected"].values()) == 6
    assert [record.value for record in place.held()[40:]] == list(BAD.values())


@pytest.mark.kafka
def test_a_letter_that_a_crash_wrote_twice_is_one(kafka: str, kafka_topic: Callable[..., str]) -> None:
    """A topic cannot leave out what it holds: a letter that was written and not yet passed by a checkpoint is written again."""
    topic = kafka_topic(1)
    there = {"bootstrap_servers": kafka}
    sink = connectors.open_sink("kafka", {**there, "topic": topic})
    for at in (3, 5, 3, 5, 8):
        sink.write([dead_letter(Record("a[0]", at, b"bad"), DecodeError("it is bad"), stage="decode")])
    sink.close()
    source = connectors.open_source("kafka", {**there, "topics": [topic]})
    assert [letter.place for letter in listed(source)] == ["a[0]@3", "a[0]@5", "a[0]@8"]
    target = MemorySink()
    assert send_again(source, target, places=["a[0]@3"], mended=b"good") == ["a[0]@3"]
    assert [message.value for message in target.messages] == [b"good"]
