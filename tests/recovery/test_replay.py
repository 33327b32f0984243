"""`streamlearn replay` repeats a run from its records and its journal, to the same model."""

import json

import pytest

from benchmarks.testbed.forks import Forks
from benchmarks.testbed.loops import outcomes
from benchmarks.testbed.small import configured, samples, settled

BAD = b'{"features": "none"}'


def recorded(partitions, per_partition):
    """Records of each partition, one of them bad."""
    held = [samples(per_partition, seed=p) for p in range(partitions)]
    held[0][17] = BAD
    return held


def ran_over_kafka(kafka, topic, held, folder, forks: Forks, **changes):
    """The configuration, the state directory, and what `inspect` says of a run that has read all of it."""
    from kafka import KafkaProducer  # noqa: PLC0415 - loaded by tests that need a broker alone

    producer = KafkaProducer(bootstrap_servers=kafka, linger_ms=20)
    for p, values in enumerate(held):
        for value in values:
            producer.send(topic, value, partition=p)
    producer.close()
    state = folder / "state"
    source = {"type": "kafka", "bootstrap_servers": kafka, "topics": [topic]}
    config = configured(state, source, checkpoint={"every_records": 50, "keep": 1000}, **changes)
    life = forks.start("run", config, "--set", "source.poll_records=13")
    life.until(lambda: settled(state) == sum(map(len, held)), "the last record's outcome")
    life.stop()
    return config, state, json.loads(forks.run("inspect", state, "--json").stdout)


def replayed(forks, config, *arguments):
    life = forks.run("replay", config, "--json", *arguments)
    assert life.wait() == 0, life.stderr
    return json.loads(life.stdout)


def lines(values):
    return b"".join(value + b"\n" for value in values)


def test_a_file_gives_the_model_that_the_daemon_had_over_kafka(kafka, kafka_topic, tmp_path, forks):
    (values,) = held = recorded(1, 333)
    letters = {"sink": {"type": "log", "path": str(tmp_path / "letters.sqlite")}}
    config, state, run = ran_over_kafka(kafka, kafka_topic(), held, tmp_path, forks, dead_letters=letters)
    kept = (tmp_path / "letters.sqlite").read_bytes()
    file = tmp_path / "samples.jsonl"
    file.write_bytes(lines(values))
    for arguments in ([], ["--journal", state / "journal"]):
        repeated = replayed(forks, config, "--from", file, *arguments)
        assert repeated["model_digest"] == run["model_digest"]
        assert repeated["outcomes"] == outcomes(learned=330, rejected=1, skipped=0)
        assert (repeated["records"], repeated["pending"], repeated["number"]) == (333, 2, 33)
    assert (tmp_path / "letters.sqlite").read_bytes() == kept, "a repetition tells nobody"


def test_a_folder_of_partitions_and_the_journal_give_model_and_positions_of_the_run(kafka, kafka_topic, tmp_path, forks):
    topic, held = kafka_topic(3), recorded(3, 150)
    held[2] = []  # nothing of it is recorded, and nothing has to be
    config, state, run = ran_over_kafka(kafka, topic, held, tmp_path, forks)
    folder = tmp_path / "recorded"
    folder.mkdir()
    for p, values in enumerate(held[:2]):
        (folder / f"{topic}[{p}].jsonl").write_bytes(lines(values))
    repeated = replayed(forks, config, "--from", folder, "--journal", state / "journal")
    for fact in ("model_digest", "state_digest", "positions", "number", "pending"):
        assert repeated[fact] == run[fact], fact
    (folder / f"{topic}[1].jsonl").unlink()
    refused = forks.run("replay", config, "--from", folder, "--journal", state / "journal")
    assert refused.wait() == 2
    assert f"does not hold partition {topic}[1] of the journal" in refused.stderr


@pytest.mark.parametrize("what", ["cut", "empty", "missing"])
def test_a_journal_that_does_not_reach_back_to_the_first_record_is_refused(tmp_path, forks, what):
    config = configured(tmp_path / "state", {"type": "log", "path": "unused.sqlite"})
    (tmp_path / "samples.jsonl").write_bytes(lines(samples(5)))
    if what != "missing":
        (tmp_path / "journal").mkdir()
    if what == "cut":
        (tmp_path / "journal" / "0001-00000007.jsonl").touch()
    life = forks.run("replay", config, "--from", tmp_path / "samples.jsonl", "--journal", tmp_path / "journal")
    assert life.wait() == 2
    found = "it begins with 0001-00000007.jsonl" if what == "cut" else "no journal is there"
    assert f"cannot be followed from the first record: {found}, expected 0001-00000000.jsonl" in life.stderr
    assert life.stderr.count("\n") == 1


def test_a_recording_that_is_not_there_is_named(tmp_path, forks):
    config = configured(tmp_path / "state", {"type": "log", "path": "unused.sqlite"})
    life = forks.run("replay", config, "--from", tmp_path / "no.jsonl")
    assert life.wait() == 2
    assert f"--from {tmp_path / 'no.jsonl'} is not there" in life.stderr
