"""The answers that were given before each label, as messages: what they say follows from the logits alone."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.testbed.fakes import MemorySink
from streamlearn.answers import AnswersTo, NoAnswerLog
from streamlearn.errors import SinkError
from streamlearn.labels import LabelMap
from streamlearn.records import Batch, LearnReport

LABELS = ("cat", 7, "dog")


def log(sink, chunk=2, partitions=("a[0]", "b[1]")):
    labels = LabelMap(max_labels=5, known=LABELS)
    return AnswersTo(sink, labels, dict.fromkeys(partitions, 0), chunk=chunk)


def report(logits, rejected=None):
    logits = np.asarray(logits, np.float32)
    return LearnReport(logits, np.zeros(len(logits), bool) if rejected is None else np.array(rejected))


def rows(labels, partitions=None, at=None):
    batch = Batch.of(np.zeros((len(labels), 1)), np.array(labels))
    batch.partitions[:] = partitions or 0
    batch.at[:] = at or range(len(labels))
    return batch


def told(sink):
    return [json.loads(message.value) for message in sink.messages]


def test_a_row_is_told_with_its_place_its_label_and_the_answer_before_it():
    sink = MemorySink()
    log(sink).write(rows([1, 2], [1, 0], [40, 9]), report([[2.0, 0.0, 0.0], [-math.inf, 0.0, 1.0]]), number=12)
    first, second = told(sink)
    assert first == {
        "place": "b[1]@40",
        "label": 7,
        "answer": "cat",
        "probability": pytest.approx(math.exp(2) / (math.exp(2) + 2)),
        "model_version": 12,
    }
    assert second["probability"] == pytest.approx(math.e / (math.e + 1)), "what was not learned yet takes no part"
    assert (second["answer"], second["label"]) == ("dog", "dog")
    assert [message.key for message in sink.messages] == [b"b[1]@40", b"a[0]@9"]


def test_before_the_first_label_there_is_no_answer():
    sink = MemorySink()
    log(sink).write(rows([0, 1]), report(np.zeros((2, 0))), number=0)
    assert [(row["answer"], row["probability"]) for row in told(sink)] == [(None, None)] * 2


def test_labels_that_are_known_and_not_learned_change_nothing():
    """How many are known depends on how far a poll reached: no bit of what is told may."""
    draw = np.random.default_rng(0)
    for learned in range(1, 12):
        logits = draw.normal(size=(1, learned)).astype(np.float32)
        wider = np.concatenate([logits, np.full((1, 9), -np.inf, np.float32)], axis=1)
        narrow, wide, none = MemorySink(), MemorySink(), MemorySink()
        for sink, each in ((narrow, logits), (wide, wider), (none, wider[:, learned:])):
            labels = LabelMap(max_labels=30, known=range(30))
            AnswersTo(sink, labels, {"a[0]": 0}, chunk=1).write(rows([0]), report(each), number=0)
        assert narrow.messages == wide.messages
        assert (told(none)[0]["answer"], told(none)[0]["probability"]) == (None, None), "no label was learned"


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_version_counts_the_chunks_that_were_learned_before(undone, number):
    """A chunk that was undone leaves the number where it was."""
    sink = MemorySink()
    labels = [0] * (2 * len(undone))
    log(sink).write(rows(labels), report(np.zeros((len(labels), 3)), np.repeat(undone, 2)), number=number)
    expected = []
    for is_undone in undone:
        expected += [number, number]
        number += not is_undone
    assert [row["model_version"] for row in told(sink)] == expected


def test_flush_reaches_the_sink_and_its_failure_is_not_hidden():
    sink = MemorySink()
    answers = log(sink)
    answers.write(rows([0, 0]), report(np.zeros((2, 3))), number=0)
    assert sink.durable == 0
    answers.flush()
    assert sink.durable == 2
    sink.fail = True
    with pytest.raises(SinkError):
        answers.flush()


def test_without_a_sink_nothing_is_kept():
    nothing = NoAnswerLog()
    nothing.write(rows([0]), report(np.zeros((1, 3))), number=0)
    nothing.flush()
    nothing.close()
