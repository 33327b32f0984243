"""One bad record is one bad record (P7)."""

import pytest

from benchmarks.testbed.fakes import MemorySink, PairDecoder
from benchmarks.testbed.loops import no_probe
from streamlearn.admit import Admission, DeadLetters, Settings, hashed
from streamlearn.errors import DecodeError, SinkError
from streamlearn.labels import LabelMap
from streamlearn.pending import Pending
from streamlearn.pending import Settings as PendingSettings
from streamlearn.prefetch import decoded
from streamlearn.records import Record

BAD = [b"[1, 5]", b"nonsense", b"[2, null]", b"[3, 6]", b"[4, 7]"]  # 7 is a third label


def admission(*, tolerance="data", max_labels=2):
    sink = MemorySink()
    letters = DeadLetters(sink, Settings(tolerance=tolerance), clock_ms=lambda: 1234)
    pending = Pending(PendingSettings(), clock_ms=lambda: 0)
    return Admission(LabelMap(max_labels=max_labels), letters, pending, no_probe()), sink


def fetched(values, partition="orders[3]", first=40):
    records = [Record(partition, first + i, v, b"k", (("h", b"x"),), 99) for i, v in enumerate(values)]
    return next(iter(decoded(records, PairDecoder(), (1,))))


def test_good_neighbours_are_admitted_in_order():
    admit, _ = admission()
    (batch,) = admit.admit(fetched(BAD))
    assert batch.x[:, 0].tolist() == [1, 3]
    assert batch.labels.tolist() == [0, 1]
    assert batch.at.tolist() == [40, 43]
    assert batch.times_ms.tolist() == [99, 99]
    assert admit.labels.by_row == (5, 6)
    assert admit.positions == {"orders[3]": 45}


def test_each_refused_record_is_counted_and_kept_with_connects_headers_and_its_own_bytes():
    admit, sink = admission()
    list(admit.admit(fetched(BAD)))
    assert dict(admit.rejected) == {"decode": 1, "admit": 2}
    assert [m.value for m in sink.messages] == [BAD[1], BAD[2], BAD[4]]
    assert [m.key for m in sink.messages] == [b"orders[3]@41", b"orders[3]@42", b"orders[3]@44"]
    headers = dict(sink.messages[0].headers)
    assert headers["h"] == b"x"
    assert headers["key"] == b"k"
    assert headers["__connect.errors.topic"] == b"orders"
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.offset"] == b"41"
    assert headers["__connect.errors.stage"] == b"decode"
    assert headers["__connect.errors.exception.class.name"] == b"DecodeError"
    assert b"not a pair" in headers["__connect.errors.exception.message"]
    assert [item["place"] for item in admit.dead_letters.last] == ["orders[3]@41", "orders[3]@42", "orders[3]@44"]


def test_a_tombstone_is_kept_as_one():
    admit, sink = admission()
    list(admit.admit(fetched([None])))
    assert sink.messages[0].value == b""
    assert dict(sink.messages[0].headers)["tombstone"] == b"true"


def test_no_tolerance_stops_at_the_first_bad_record():
    admit, sink = admission(tolerance="none")
    with pytest.raises(DecodeError, match=r"orders\[3\]@41.*tolerance is none"):
        list(admit.admit(fetched(BAD)))
    assert sink.messages == []


def test_letters_that_cannot_be_written_stop_the_run_unless_everything_is_tolerated():
    admit, sink = admission()
    sink.fail = True
    with pytest.raises(SinkError):
        list(admit.admit(fetched(BAD)))
    admit, sink = admission(tolerance="all")
    sink.fail = True
    assert [len(batch) for batch in admit.admit(fetched(BAD))] == [2]
    assert admit.dead_letters.lost == 3


def test_flush_makes_letters_durable():
    admit, sink = admission()
    list(admit.admit(fetched(BAD)))
    assert sink.durable == 0
    admit.dead_letters.flush()
    assert sink.durable == 3


def test_partitions_keep_the_index_of_their_first_appearance_across_a_restore():
    admit, _ = admission(max_labels=9)
    for partition in ("b[0]", "a[0]"):
        list(admit.admit(fetched([b"[1, 5]"], partition)))
    again, _ = admission(max_labels=9)
    again.restore(admit.state())
    again.labels.restore(admit.labels.state())
    (batch,) = again.admit(fetched([b"[1, 5]"], "a[0]", 41))
    assert batch.partitions.tolist() == [1]
    assert again.positions == {"b[0]": 41, "a[0]": 42}


def test_a_hashed_id_is_never_the_mark_of_a_missing_one():
    assert hashed("order-1") == int.from_bytes(__import__("hashlib").blake2b(b"order-1", digest_size=8).digest(), "little")
    assert hashed("") > 0
