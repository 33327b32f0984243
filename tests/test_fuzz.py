"""Fuzzed records in small (`make fuzz` is the whole): never a crash, a wrong reading, or memory for lengths that lie."""

import json
import random

import pytest

from benchmarks.fuzz import trial
from benchmarks.fuzz.independent import PARSERS
from benchmarks.fuzz.records import LIES, fuzzed
from streamlearn import decode
from streamlearn.decode.fields import Rules
from streamlearn.errors import DecodeError
from streamlearn.records import Record

RECORDS = 3000


def test_every_format_is_fuzzed() -> None:
    assert set(PARSERS) == {*decode.FORMATS, "cloudevents"}


@pytest.mark.parametrize("format_", PARSERS)
def test_what_is_accepted_is_what_another_parser_reads(format_: str) -> None:
    found = trial.run(format_, RECORDS, seed=1)
    assert found.wrong == []
    assert found.accepted > RECORDS / 5, "right records were among them"
    assert found.refused > RECORDS / 5, "broken ones too"
    assert found.stricter.total() < RECORDS / 100


def test_a_decoder_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ways: another number, a label that is dropped, an error of its own."""
    right = trial.by_program
    wrong = {
        "read as": lambda found: found._replace(features=found.features[:-1] + b"\x01"),
        "read as Found": lambda found: found._replace(label=None),
        "it raised": lambda _: 1 / 0,
    }
    for text, change in wrong.items():
        monkeypatch.setattr(trial, "by_program", lambda *given, change=change: change(right(*given)))
        assert any(text in each for each in trial.run("json", 300, seed=2).wrong)


@pytest.mark.parametrize("lie", LIES)
def test_a_length_that_nothing_stands_behind_takes_no_memory(lie: bytes) -> None:
    found, decoder = trial.Verdicts(), trial.decoder_of("msgpack")
    for value in (lie, b"\x81\xa8features" + lie, b"\x82\xa8features\x96" + b"\x01" * 6 + b"\xa5label" + lie):
        trial._measure(decoder, value, (), found)
    assert found.wrong == []
    assert found.peak_bytes < 20_000


def test_a_name_that_is_no_text_is_refused_and_not_passed_over() -> None:
    """One wrong byte in `label` would else make it a field that is not known, and the label would be gone."""
    value = json.dumps({"features": [1, 2], "label": 3}).encode().replace(b"label", b"lab\xe5l")
    decoder = decode.ALWAYS["json"](Rules((2,), 1000))
    with pytest.raises(DecodeError, match="no text in UTF-8"):
        decoder.decode(Record("a[0]", 1, value), trial.np.zeros(2, "f4"))


def test_a_seed_makes_the_same_records() -> None:
    one, two = ([fuzzed("json", draw) for _ in range(50)] for draw in (random.Random(3), random.Random(3)))
    assert one == two
