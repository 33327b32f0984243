"""Dead letters can be listed, shown, mended and sent again; a letter sent twice is learned once."""

import pytest

import connectors
from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.admit import CONNECT, REPLAYS, dead_letter
from streamlearn.errors import ConfigError, DecodeError
from streamlearn.letters import letters, send_again
from streamlearn.records import Record
from tests.test_admit import admission, fetched

BAD = [
    Record("a[0]", 3, b"not json", b"own key", (("h", b"x"),), 99),
    Record("a[0]", 5, None),
    Record("a[0]", 8, b"\xff\xfe"),
]


@pytest.fixture
def kept(tmp_path):
    """A log of dead letters, as the daemon writes it."""
    path = str(tmp_path / "letters.sqlite")
    sink = connectors.open_sink("log", {"path": path, "unique_keys": True})
    sink.write([dead_letter(record, DecodeError("it is bad"), stage="decode") for record in BAD])
    sink.close()
    return lambda: connectors.open_source("log", {"path": path})


@pytest.fixture
def target(tmp_path):
    """A source's log, and what it holds."""
    path = str(tmp_path / "samples.sqlite")

    def held():
        source = connectors.open_source("log", {"path": path})
        source.seek({})
        records = source.poll(100, 0.1)
        source.close()
        return records

    return lambda: connectors.open_sink("log", {"path": path}), held


def test_letters_are_listed_with_place_stage_and_reason(kept):
    found = [letter.facts() for letter in letters(kept())]
    assert [(f["place"], f["stage"], f["reason"]) for f in found] == [
        ("a[0]@3", "decode", "it is bad"),
        ("a[0]@5", "decode", "it is bad"),
        ("a[0]@8", "decode", "it is bad"),
    ]
    assert found[0]["value"] == "not json"
    assert found[2]["value"] == repr(b"\xff\xfe")


def test_a_letter_is_sent_again_with_its_own_bytes_key_headers_and_time(kept, target):
    open_sink, held = target
    assert send_again(kept(), open_sink(), places=["a[0]@3"]) == ["a[0]@3"]
    (record,) = held()
    assert (record.value, record.key, record.time_ms) == (b"not json", b"own key", 99)
    assert record.headers == (("h", b"x"), (REPLAYS, b"a[0]@3"))
    assert not any(name.startswith(CONNECT) for name, _ in record.headers)


def test_a_mended_value_stands_for_one_letter(kept, target):
    open_sink, held = target
    with pytest.raises(ConfigError, match="found 3, name one place"):
        send_again(kept(), open_sink(), places=[], mended=b"[1, 0]")
    send_again(kept(), open_sink(), places=["a[0]@3"], mended=b"[1, 0]")
    assert [record.value for record in held()] == [b"[1, 0]"]


def test_an_unknown_place_is_refused_and_nothing_is_sent(kept, target):
    open_sink, held = target
    with pytest.raises(ConfigError, match=r"no dead letter came from b\[9\]@1"):
        send_again(kept(), open_sink(), places=["a[0]@3", "b[9]@1"])
    assert held() == []


def test_a_letter_sent_twice_is_learned_once_also_across_a_restart():
    admit, _ = admission()
    mended = fetched([b"[1, 5]"])
    mended = mended.__class__(
        mended.partition,
        [mended.records[0]._replace(headers=((REPLAYS, b"a[0]@3"),))],
        mended.samples,
        mended.x,
        mended.size_bytes,
    )
    assert [len(batch) for batch in admit.admit(mended)] == [1]
    again, _ = admission()
    again.labels.restore(admit.labels.state())
    again.restore(admit.state())
    assert list(again.admit(mended)) == []
    assert again.skipped == 1


def test_every_record_still_has_one_outcome(tmp_path):
    with started(tmp_path, MemorySource({"a[0]": [b"[1, 0]", b"bad", b"[2, 1]", b"[3, 1]"]})) as loop:
        drain(loop)
        assert sum(loop.outcomes().values()) + len(loop.chunks) == 4


def sent_again(value, at):
    """A record at `at` that stands for the one at `a[0]@3`."""
    run = fetched([value])
    record = run.records[0]._replace(position=at, headers=((REPLAYS, b"a[0]@3"),))
    return run.__class__(run.partition, [record], run.samples, run.x, run.size_bytes)


def test_a_letter_that_was_mended_badly_may_be_mended_again_and_is_learned_once():
    admit, _ = admission()
    values = enumerate((b"bad", b"[1, 5]", b"[1, 5]", b"bad"), 40)
    learned = [sum(map(len, admit.admit(sent_again(value, at)))) for at, value in values]
    assert learned == [0, 1, 0, 0]
    assert (sum(admit.rejected.values()), admit.skipped) == (1, 2)


def test_the_letter_of_a_bad_mend_stands_for_the_same_record(target, tmp_path):
    """Whichever of the two is mended, the place that is learned once is that of the first."""
    path = str(tmp_path / "chain.sqlite")
    sink = connectors.open_sink("log", {"path": path, "unique_keys": True})
    badly = Record("a[0]", 40, b"still bad", None, ((REPLAYS, b"a[0]@3"),))
    sink.write([dead_letter(each, DecodeError("it is bad"), stage="decode") for each in (BAD[0], badly)])
    sink.close()
    open_sink, held = target
    source = connectors.open_source("log", {"path": path})
    assert send_again(source, open_sink(), places=[]) == ["a[0]@3", "a[0]@40"]
    assert [dict(record.headers)[REPLAYS] for record in held()] == [b"a[0]@3", b"a[0]@3"]


def test_a_letter_that_a_crash_wrote_twice_is_listed_once(tmp_path):
    path = str(tmp_path / "twice.sqlite")
    sink = connectors.open_sink("log", {"path": path})  # like a topic: it does not look at keys
    sink.write([dead_letter(record, DecodeError("it is bad"), stage="decode") for record in (*BAD, *BAD)])
    sink.close()
    found = [letter.place for letter in letters(connectors.open_source("log", {"path": path}))]
    assert found == ["a[0]@3", "a[0]@5", "a[0]@8"]
