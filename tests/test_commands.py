"""What the commands give back, called as functions: `check`, `replay`, `inspect`."""

import json
import time

import numpy as np
import pytest
import structlog

from benchmarks.testbed.loops import outcomes
from benchmarks.testbed.small import append, keys, samples
from streamlearn import commands
from streamlearn.checkpoint import Checkpoints
from streamlearn.config import configure
from streamlearn.errors import CheckpointError, ConfigError, SourceError
from streamlearn.inspection import inspected

QUIET = {"log": {"level": "error"}}


@pytest.fixture(autouse=True)
def logs_as_before():
    """A command sets up the logs of its process."""
    yield
    structlog.reset_defaults()


def on_log(tmp_path, n, **changes):
    append(tmp_path / "samples.sqlite", samples(n))
    return configure(keys(tmp_path / "state", {"type": "log", "path": str(tmp_path / "samples.sqlite")}, **QUIET, **changes))


def recorded(tmp_path, values, name="samples.jsonl"):
    path = tmp_path / name
    path.write_bytes(b"".join(value + b"\n" for value in values))
    return path


def test_check_waits_for_a_record_no_longer_than_it_is_told(tmp_path):
    began = time.monotonic()
    facts = commands.check(on_log(tmp_path, 0), timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began < 9.5, "left alone it waits for 10 s"
    assert facts["record"] == "none within the time-out: the source is empty"


def test_check_tells_learner_network_input_and_the_first_label(tmp_path):
    facts = commands.check(on_log(tmp_path, 2, serve={"enabled": True, "processes": 2}))
    label = json.loads(samples(1)[0])["label"]
    assert facts["record"] == f"samples[0]@0: label '{label}'"
    assert (facts["learner"], facts["network"], facts["input"]) == ("la-maml, chunk of 10", "mlp", "json [6]")
    assert facts["serve"] == "2 process"


def test_check_of_a_source_that_stays_away_raises_its_error(tmp_path):
    away = {"type": "kafka", "bootstrap_servers": "127.0.0.1:1", "topics": ["a"], "timeout_s": 0.1}
    config = configure(keys(tmp_path / "state", away, **QUIET))
    with pytest.raises(SourceError, match=r"kafka 127\.0\.0\.1:1"):
        commands.check(config, timeout_s=0.5)


def replayed(config, path, **more):
    return commands.replay(config, path, journal=None, progress=False, **more)


def test_a_replay_tells_outcomes_metrics_and_digests_and_leaves_no_state(tmp_path):
    config = on_log(tmp_path, 0)
    values = samples(203)
    values[50] = b"broken"
    facts = replayed(config, recorded(tmp_path, values))
    assert facts["records"] == 203
    assert facts["outcomes"] == outcomes(learned=200, rejected=1, skipped=0)
    assert (facts["pending"], facts["number"], facts["positions"]) == (2, 20, {"samples[0]": 203})
    assert 0.25 < facts["windowed_accuracy"] <= 1.0
    assert len(facts["model_digest"]) == 64
    assert not (tmp_path / "state").exists()


def test_a_replay_calls_labels_by_their_names_and_tells_what_the_probe_found(tmp_path):
    """Labels 7 and 9 stand in rows 0 and 1; a recall of a row would be of another label's name."""
    lines = [json.dumps({"features": [float(i % 2)] * 6, "label": 7 + 2 * (i % 2)}).encode() for i in range(400)]
    probe = {"share": 0.5, "first_rows": 5, "era_records": 100}
    facts = replayed(on_log(tmp_path, 0, probe=probe), recorded(tmp_path, lines))
    assert {name for name in facts if name.startswith("recall/")} == {"recall/7", "recall/9"}
    assert facts["probe_rows"] == facts["outcomes"]["probe"] > 100
    assert facts["probe_retention/auto"] > 0.9, "two points are told apart"
    assert not [name for name in replayed(on_log(tmp_path, 0), recorded(tmp_path, lines)) if name.startswith("probe_")]


def test_a_replay_is_the_same_twice_and_another_with_one_record_changed(tmp_path):
    config = on_log(tmp_path, 0)
    values = samples(40)
    digests = [replayed(config, recorded(tmp_path, values))["state_digest"] for _ in range(2)]
    changed = [*values[:39], samples(1, seed=9)[0]]
    assert digests[0] == digests[1] != replayed(config, recorded(tmp_path, changed))["state_digest"]


def test_how_many_records_one_poll_returns_changes_nothing(tmp_path):
    path = recorded(tmp_path, samples(150))
    digests = {
        replayed(on_log(tmp_path, 0, source={"poll_records": n, "ahead_records": 2 * n}), path)["state_digest"]
        for n in (1, 7, 500)
    }
    assert len(digests) == 1


def test_lines_columns_and_arrays_of_the_same_samples_give_the_same_model(tmp_path):
    """As .jsonl, .csv and .npz; labels are whole numbers in all three."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 3, 60)
    lines = [json.dumps({"features": row.tolist(), "label": int(label)}).encode() for row, label in zip(x, y, strict=True)]
    columns = [",".join([*map(repr, row.tolist()), str(label)]).encode() for row, label in zip(x, y, strict=True)]
    np.savez(tmp_path / "samples.npz", x=x, y=y)
    names = [*(f"f{i}" for i in range(6)), "label"]
    told = {
        "jsonl": replayed(on_log(tmp_path, 0), recorded(tmp_path, lines)),
        "npz": replayed(on_log(tmp_path, 0), tmp_path / "samples.npz"),
        "csv": replayed(
            on_log(tmp_path, 0, decode={"format": "csv", "csv": {"columns": names}}, label={"type": "integer"}),
            recorded(tmp_path, columns, "samples.csv"),
        ),
    }
    assert {facts["outcomes"]["learned"] for facts in told.values()} == {60}
    assert len({facts["model_digest"] for facts in told.values()}) == 1


@pytest.fixture
def state(tmp_path):
    """A state directory with two checkpoints."""
    config = on_log(tmp_path, 0)
    path = recorded(tmp_path, samples(25))
    loop = commands.assemble.prequential(config, state_dir=tmp_path / "state", publisher=commands.Reference())
    loop.journal.resume("0001-00000000")
    reading = commands._reading(config, {"samples[0]": path}, loop)
    reading.start()
    loop.turn(5.0)
    while not loop.intake.drained:
        loop.turn(1.0)
    for _ in range(2):
        loop.begin_checkpoint()
        loop.writer.wait()
    reading.stop(5.0)
    loop.writer.close()
    loop.journal.close()
    return tmp_path / "state"


def test_inspect_tells_what_a_checkpoint_holds(state):
    facts = inspected(state)
    older, newer = facts["kept"]
    assert (facts["checkpoint"], facts["number"], facts["positions"]) == (newer, 2, {"samples[0]": 25})
    assert (facts["counts"]["learned"], facts["pending"], facts["rejected"]) == (20, 5, {})
    assert set(facts["labels"]) == {json.loads(value)["label"] for value in samples(25)}
    checkpoint, written = Checkpoints(state / "checkpoints").read(newer)
    assert facts["model_digest"] == checkpoint.model_digest
    assert facts["state_digest"] == written.state_digest
    assert sum(facts["part_bytes"].values()) == sum(array.nbytes for array in checkpoint.state.arrays.values())
    assert inspected(state, older)["checkpoint"] == older
    json.dumps(facts, allow_nan=False)


def test_inspect_names_what_is_kept_when_asked_for_another(state):
    with pytest.raises(ConfigError, match="holds no checkpoint 0009-00000009: it holds 0001-0"):
        inspected(state, "0009-00000009")


def test_inspect_of_a_damaged_checkpoint_says_so_and_touches_nothing(state):
    newest = inspected(state)["checkpoint"]
    (state / "checkpoints" / newest / "arrays.safetensors").write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=f"checkpoint {newest}: its arrays have not the digest"):
            inspected(state)
