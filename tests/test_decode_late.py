"""Late labels as bytes."""

import msgspec
import numpy as np
import pytest

from streamlearn import decode
from streamlearn.decode import late
from streamlearn.errors import DecodeError
from streamlearn.records import ANSWER, LABEL, Record, Sample

FOUND = Sample(7, "a", 5, kind="label")


def decoded(value, headers=(), *, format_="json", label_type="any"):
    decoder = decode.decoder_for(decode.Settings(format=format_), (2,), label_type=label_type)
    return decoder.decode(Record("a[0]", 3, value, headers=headers), np.zeros(2, np.float32))


@pytest.mark.parametrize("format_", ["json", "msgpack", "tensor"])
def test_the_header_says_that_a_record_is_a_label_whatever_samples_are(format_):
    message = late.encode("a", 7, time_ms=5)
    headers = (*message.headers, ("content-type", b"application/json"))
    assert decoded(message.value, headers, format_=format_) == FOUND
    packed = msgspec.msgpack.encode({"id": "a", "label": 7, "time": 5})
    assert decoded(packed, (*message.headers, ("content-type", b"application/msgpack"))) == FOUND


def test_the_value_may_say_it_itself():
    values = {"kind": "label", "id": "a", "label": 7, "time": 5}
    assert decoded(msgspec.json.encode(values)) == FOUND
    assert decoded(msgspec.msgpack.encode(values), format_="msgpack") == FOUND


def test_a_sample_that_has_the_word_in_it_is_a_sample():
    found = decoded(b'{"features": [1, 2], "label": "kind", "kind": "of"}')
    assert found == Sample("kind")
    assert decoded(b'{"features": [1, 2], "id": "kind"}') == Sample(None, "kind")


def test_labels_follow_the_rules_of_labels():
    assert decoded(b'{"kind": "label", "id": 12, "label": "7"}', label_type="integer") == Sample(7, "12", kind="label")
    for value in (b'{"id": "a", "label": 0.5}', b'{"id": "", "label": 1}', b'{"id": null, "label": 1}', b'{"id": "a"}', b"]"):
        with pytest.raises(DecodeError, match=r"a\[0\]@3"):
            decoded(value, LABEL)
    with pytest.raises(DecodeError, match="streamlearn-kind"):
        decoded(b"{}", (("streamlearn-kind", b"rumour"),))


def answer(**changes):
    values = {"id": "a", "features": np.array([1, 2], "<f4").tobytes(), "number": 9, "label": "x"}
    values["probabilities"] = np.array([0.25, 0.75], "<f4").tobytes()
    return msgspec.msgpack.encode(values | changes)


def test_an_answer_that_was_served_comes_back_as_it_was_given():
    found = decoded(answer(), ANSWER)
    assert (found.kind, found.id, found.label) == ("answer", "a", None)
    assert (found.given.number, found.given.is_served, found.given.label) == (9, True, "x")
    np.testing.assert_allclose(np.exp(found.given.logits), [0.25, 0.75], rtol=1e-6)
    assert found.given.confidence == pytest.approx(0.75)


@pytest.mark.parametrize("broken", [{"number": -1}, {"features": b"abc"}, {"probabilities": b""}, {"features": b"\0" * 12}])
def test_a_broken_answer_is_refused(broken):
    with pytest.raises(DecodeError):
        decoded(answer(**broken), ANSWER)
