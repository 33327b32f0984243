"""A checkpoint exists whole or not at all."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from streamlearn.checkpoint import Checkpoint, Checkpoints, CheckpointWriter, digest
from streamlearn.errors import CheckpointError
from streamlearn.records import State


def checkpoint(number=3, scale=1.0):
    arrays = {
        "learner/w": np.arange(6, dtype=np.float32).reshape(2, 3) * scale,
        "learner/rng": np.frombuffer(b"random", np.uint8),
        "chunks/x": np.zeros((0, 4), np.float32),
        "chunks/ids": np.array([2**64 - 1], np.uint64),
    }
    values = {"learner": {"seen": 7}, "labels": {"labels": ["a", 1]}, "tally": {"fade": 0.1 + 0.2}}
    return Checkpoint(number, State(arrays, values), {"a[0]": 30}, {"segment": "0001-00000001", "taken": 0})


def test_what_was_saved_is_read_back_bit_for_bit(tmp_path):
    store = Checkpoints(tmp_path)
    saved = store.save("0001-00000001", checkpoint(), created_ms=5)
    read, written = store.newest()
    assert written == saved
    assert read.number == 3
    assert dict(read.positions) == {"a[0]": 30}
    assert read.state.values == checkpoint().state.values
    for name, array in checkpoint().state.arrays.items():
        np.testing.assert_array_equal(read.state.arrays[name], array)
        assert read.state.arrays[name].dtype == array.dtype


def test_the_digest_is_the_one_that_an_independent_reader_computes():
    state = State({"b": np.array([1.5], "<f4"), "a": np.array([[1, 2]], "<i8")}, {"z": 1, "y": [True, None, "ü"]})
    text = b"a:<i8:(1, 2);" + np.array([[1, 2]], "<i8").tobytes() + b"b:<f4:(1,);" + np.array([1.5], "<f4").tobytes()
    text += json.dumps({"y": [True, None, "ü"], "z": 1}, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest(state) == hashlib.sha256(text).hexdigest()


def test_the_model_digest_leaves_positions_out_and_the_state_digest_does_not():
    one = checkpoint()
    other = Checkpoint(one.number, one.state, {"a[0]": 31}, one.journal)
    assert one.model_digest == other.model_digest
    assert one.state_digest != other.state_digest
    assert one.model_digest != checkpoint(scale=2.0).model_digest


@pytest.mark.parametrize("file", ["arrays.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path, file, damage):
    store = Checkpoints(tmp_path)
    for number in (1, 2):
        store.save(f"0001-0000000{number}", checkpoint(number), created_ms=0)
    _damage(tmp_path / "0001-00000002" / file, damage)
    read, written = store.newest()
    assert (read.number, written.name) == (1, "0001-00000001")
    assert (tmp_path / "torn-0001-00000002").exists()
    assert store.next_name() == "0001-00000003"


def _damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[kind])


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    store = Checkpoints(tmp_path)
    store.save("0001-00000001", checkpoint(), created_ms=0)
    path = tmp_path / "0001-00000001" / "manifest.json"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(CheckpointError):
            store.read("0001-00000001")


def test_the_start_is_refused_when_every_checkpoint_is_damaged(tmp_path):
    store = Checkpoints(tmp_path)
    store.save("0001-00000001", checkpoint(), created_ms=0)
    (tmp_path / "0001-00000001" / "manifest.json").write_bytes(b"{}")
    for _ in range(2):  # the second start must not take what the first one set aside for a state that never was
        with pytest.raises(CheckpointError, match=r"all 1 checkpoints .* are damaged"):
            store.newest()


def test_another_schema_is_refused_by_name(tmp_path):
    store = Checkpoints(tmp_path)
    store.save("0001-00000001", checkpoint(), created_ms=0)
    path = tmp_path / "0001-00000001" / "manifest.json"
    body = json.loads(path.read_bytes())["body"] | {"schema": 99}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(json.dumps({"body": body, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}))
    with pytest.raises(CheckpointError, match="0001-00000001 was written by schema 99, this program reads 1"):
        store.newest()


def test_the_newest_are_kept_and_half_written_ones_do_not_exist(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    (tmp_path / ".0001-00000009").mkdir()
    for number in range(1, 6):
        store.save(f"0001-0000000{number}", checkpoint(number), created_ms=0)
    assert store.names() == ["0001-00000004", "0001-00000005"]
    assert store.next_name() == "0001-00000006"
    assert store.next_name(after="0001-00000007") == "0001-00000008"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    store = Checkpoints(tmp_path)
    (tmp_path / ".0001-00000004").mkdir()
    (tmp_path / ".0001-00000004" / "manifest.json").write_bytes(b"half")
    store.save("0001-00000005", checkpoint(), created_ms=0)
    assert [path.name for path in tmp_path.iterdir()] == ["0001-00000005"]


def test_the_journal_has_to_reach_back_to_the_oldest_kept_checkpoint_and_to_the_first_record_while_none_was_removed(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    oldest = [store.oldest_segment()]
    for number in (1, 2, 3):
        name = f"0001-0000000{number}"
        one = checkpoint(number)
        store.save(name, Checkpoint(number, one.state, one.positions, {"segment": name, "taken": 0}), created_ms=0)
        oldest.append(store.oldest_segment())
    assert oldest == ["0001-00000000", "0001-00000000", "0001-00000001", "0001-00000002"]
    (tmp_path / "0001-00000002" / "manifest.json").write_bytes(b"damaged")
    assert store.oldest_segment() == "0001-00000000", "nobody knows what it needs"


def test_an_empty_folder_is_a_first_start(tmp_path):
    assert Checkpoints(tmp_path / "none").newest() is None
    assert Checkpoints(tmp_path / "none").next_name() == "0001-00000001"


def test_a_write_that_fails_is_counted_and_the_one_before_it_stands(tmp_path):
    store = Checkpoints(tmp_path)
    done = []
    writer = CheckpointWriter(store, clock_ms=lambda: 0)
    writer.on_durable.append(lambda written, _: done.append(written.number))
    writer.start("0001-00000001", checkpoint(1))
    writer.wait()
    (tmp_path / ".0001-00000002").write_text("in the way")
    writer.start("0001-00000002", checkpoint(2))
    writer.wait()
    writer.close()
    assert (done, writer.failed, store.names()) == ([1], 1, ["0001-00000001"])
