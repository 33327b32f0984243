"""A published snapshot comes back whole or not at all."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from streamlearn.errors import SnapshotError
from streamlearn.records import Answering, Snapshot
from streamlearn.snapshot import FilePublisher, FollowedFile, Reference, live_folder
from streamlearn.snapshot_file import FILE, read, write

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8, np.bool_]  # fmt: skip  # noqa: E501 - a table
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: name != "__metadata__")


def snapshot_of(number=7, **arrays):
    arrays = arrays or {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False, True])}
    return Snapshot(number, Answering("mlp", arrays, {"layers": 2}), ("cat", 3, "3"), (2,), 1_700_000_000_000, {"log": 41})


@st.composite
def snapshots(draw):
    shapes = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    array = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays_of.arrays(dtype, shapes))
    labels = st.lists(
        st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1)), max_size=5
    )
    return Snapshot(
        number=draw(st.integers(0, 2**53)),
        answering=Answering(
            draw(NAMES), draw(st.dictionaries(NAMES, array, max_size=4)), {"depth": [1, None, "x"], "rate": 0.5}
        ),
        labels=tuple(draw(labels)),
        shape=draw(st.lists(st.integers(1, 2**40), max_size=3).map(tuple)),
        published_ms=draw(st.integers(0, 2**53)),
        positions=draw(st.dictionaries(NAMES, st.integers(0, 2**62), max_size=3)),
        sets=draw(st.dictionaries(st.floats(0.01, 0.99), st.floats(-1.0, 2.0), max_size=3)),
    )


def assert_same(found, expected):
    assert (found.number, found.labels, found.shape) == (expected.number, expected.labels, expected.shape)
    assert [type(label) for label in found.labels] == [type(label) for label in expected.labels]
    assert found.sets == expected.sets
    assert (found.published_ms, found.positions) == (expected.published_ms, expected.positions)
    assert (found.answering.form, found.answering.settings) == (expected.answering.form, expected.answering.settings)
    assert found.answering.arrays.keys() == expected.answering.arrays.keys()
    for name, array in expected.answering.arrays.items():
        np.testing.assert_array_equal(found.answering.arrays[name], array, strict=True)


@settings(deadline=None, max_examples=60)
@given(snapshots())
def test_what_is_written_is_read(tmp_path_factory, snapshot):
    assert_same(read(write(snapshot, tmp_path_factory.mktemp("live"))), snapshot)


def test_the_safetensors_library_reads_the_file(tmp_path):
    arrays = {dtype.__name__: np.arange(3).astype(dtype) for dtype in DTYPES}
    found = safetensors.numpy.load_file(write(snapshot_of(**arrays), tmp_path))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_arrays_are_views_of_the_file_that_cannot_be_written(tmp_path):
    found = read(write(snapshot_of(), tmp_path)).answering.arrays["w"]
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def test_wide_arrays_are_aligned_whatever_lies_between_them(tmp_path):
    odd = {"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.float64), "c": np.zeros(1, np.uint8), "d": np.zeros(5, np.float32)}
    assert all(array.flags.aligned for array in read(write(snapshot_of(**odd), tmp_path)).answering.arrays.values())


def test_an_array_that_is_not_contiguous_is_written_in_its_order(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(read(write(snapshot_of(w=turned), tmp_path)).answering.arrays["w"], turned)


def test_a_dtype_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(SnapshotError, match="complex128: expected one of F64"):
        write(snapshot_of(w=np.zeros(2, complex)), tmp_path)


def test_any_change_of_any_byte_is_noticed(tmp_path):
    path = write(snapshot_of(), tmp_path)
    whole = path.read_bytes()
    blanks = whole.rfind(b"}", 0, whole.rfind(b" ")) + 1  # padding may change without changing what the file says
    data = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(blanks), *range(data, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(SnapshotError):
            read(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = write(snapshot_of(), tmp_path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(SnapshotError, match=FILE):
            read(path)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_random_bytes_are_refused(tmp_path_factory, noise, claimed):
    path = tmp_path_factory.mktemp("live") / FILE
    for body in (noise, claimed.to_bytes(8, "little") + noise, len(noise).to_bytes(8, "little") + noise):
        path.write_bytes(body)
        with pytest.raises(SnapshotError):
            read(path)


HEADERS = [
    b"{}",
    b"[" * 5000,
    b'{"__metadata__":{"schema":"2"}}',
    b'{"w":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,4]}}',
    b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
    b'{"w":{"dtype":"F32","shape":[0,99999999999999999999],"data_offsets":[0,0]}}',
    b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_lying_headers_are_refused(tmp_path, header):
    path = tmp_path / FILE
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    with pytest.raises(SnapshotError):
        read(path)


def of_another_schema(folder, number=0):
    """A snapshot in place as a later version of this program may write it."""
    path = write(snapshot_of(number), folder)
    path.write_bytes(path.read_bytes().replace(b'"schema":"4"', b'"schema":"5"'))
    return path


def test_another_schema_names_itself(tmp_path):
    path = of_another_schema(tmp_path)
    with pytest.raises(SnapshotError, match="written by schema '5', this program reads '4'"):
        read(path)


def test_a_folder_that_is_gone_is_an_error_of_publishing(tmp_path):
    with pytest.raises(SnapshotError, match="cannot be written"):
        write(snapshot_of(), tmp_path / "gone")


def test_a_follower_sees_each_new_snapshot_and_keeps_the_last_good_one(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    assert followed.poll() is None
    assert not followed.changed()
    publisher.publish(snapshot_of(1))
    assert followed.current() is None, "only poll reads"
    assert followed.poll().number == 1
    assert followed.poll() is followed.current()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).write_bytes(b"torn")
    assert followed.changed()
    assert followed.poll().number == 1
    assert followed.failed_loads == 1
    assert followed.poll().number == 1
    assert followed.failed_loads == 1, "a bad file is read once"
    publisher.publish(snapshot_of(3))
    assert followed.poll().number == 3


def test_a_follower_knows_whether_it_refuses_and_says_it_once(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    assert not followed.refuses
    with structlog.testing.capture_logs() as said:
        for number in range(3):
            of_another_schema(tmp_path, number)
            assert followed.poll() is None
            assert followed.refuses
        publisher.publish(snapshot_of(3))
        assert followed.poll().number == 3
        assert not followed.refuses
        of_another_schema(tmp_path, 4)
        assert followed.poll().number == 3
        assert followed.refuses
    told = [line for line in said if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ["snapshot.refused", "snapshot.taken_again", "snapshot.refused"]
    assert [line["serving"] for line in told] == [None, 3, 3]
    assert followed.failed_loads == 4


def test_a_snapshot_that_could_not_be_written_is_written_once_it_can_be(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    publisher.publish(snapshot_of(1))
    in_the_way = tmp_path / f".{FILE}.tmp"
    in_the_way.mkdir()
    publisher.publish(snapshot_of(2))
    publisher.publish(snapshot_of(3))
    assert followed.poll().number == 1
    assert publisher.failed_writes == 2
    in_the_way.rmdir()
    publisher.beat()
    assert followed.poll().number == 3
    identity = (tmp_path / FILE).stat().st_ino
    publisher.beat()
    assert (tmp_path / FILE).stat().st_ino == identity, "written once"


def test_a_replaced_file_stays_readable_for_those_who_hold_it(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    publisher.publish(snapshot_of(1, w=np.full(100_000, 1.0)))
    old = followed.poll()
    publisher.publish(snapshot_of(2, w=np.full(100_000, 2.0)))
    followed.poll()
    assert set(old.answering.arrays["w"]) == {1.0}


def test_a_reader_never_sees_half_a_snapshot_while_it_is_rewritten(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    publisher.publish(snapshot_of(0, w=np.zeros(20_000)))

    def rewrite():
        for number in range(1, 200):
            publisher.publish(snapshot_of(number, w=np.full(20_000, float(number))))

    writer = threading.Thread(target=rewrite)
    writer.start()
    numbers = set()
    while writer.is_alive():
        found = followed.poll()
        numbers.add(found.number)
        assert (found.answering.arrays["w"] == found.number).all()
    writer.join()
    assert followed.failed_loads == 0
    assert len(numbers) > 3


def test_a_reference_hands_over_the_very_object():
    now = [100.0]
    reference = Reference(clock=lambda: now[0])
    assert reference.current() is None
    assert reference.age_s() == float("inf")
    snapshot = snapshot_of()
    reference.publish(snapshot)
    now[0] = 107.0
    assert reference.current() is snapshot
    assert reference.age_s() == 7.0
    reference.beat()
    assert reference.age_s() == 0.0


def test_age_counts_from_the_last_sign_of_life(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    assert followed.age_s() == float("inf")
    publisher.publish(snapshot_of())
    assert 0 <= followed.age_s() < 10
    set_back(tmp_path, 1_000)
    assert 999 < followed.age_s() < 1_100
    publisher.beat()
    assert 0 <= followed.age_s() < 10


def test_a_snapshot_that_cannot_be_written_is_no_silence(tmp_path):
    publisher, followed = FilePublisher(tmp_path), FollowedFile(tmp_path)
    publisher.publish(snapshot_of(1))
    (tmp_path / f".{FILE}.tmp").mkdir()
    set_back(tmp_path, 1_000)
    publisher.publish(snapshot_of(2))
    assert publisher.failed_writes == 1
    assert 0 <= followed.age_s() < 10


def set_back(folder, seconds):
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_the_live_folder_is_in_memory_private_and_the_same_each_time(tmp_path):
    memory, state = tmp_path / "shm", tmp_path / "state"
    memory.mkdir()
    folder = live_folder(state, memory=memory)
    assert folder.parent == memory
    assert folder.stat().st_mode & 0o777 == 0o700
    assert live_folder(state, memory=memory) == folder
    assert live_folder(tmp_path / "other", memory=memory) != folder


def test_the_live_folder_is_where_the_configuration_says(tmp_path):
    assert live_folder(tmp_path / "state", tmp_path / "here") == tmp_path / "here"
    assert (tmp_path / "here").is_dir()


@pytest.mark.parametrize("trouble", ["absent", "full", "open to others", "a link"])
def test_the_live_folder_falls_back_to_the_state_directory(tmp_path, trouble):
    memory, state = tmp_path / "shm", tmp_path / "state"
    needed_bytes = 1 << 60 if trouble == "full" else 1
    if trouble != "absent":
        memory.mkdir()
    if trouble in {"open to others", "a link"}:
        folder = live_folder(state, memory=memory)
        folder.rmdir()
        make_hostile(folder, trouble, tmp_path)
    assert live_folder(state, needed_bytes=needed_bytes, memory=memory) == state / "live"
    assert (state / "live").is_dir()


def make_hostile(folder: Path, trouble, tmp_path):
    if trouble == "a link":
        target = tmp_path / "elsewhere"
        target.mkdir(mode=0o700)
        folder.symlink_to(target)
    else:
        folder.mkdir()
        folder.chmod(0o777)


def test_reading_snapshots_loads_neither_torch_nor_river():
    program = "import sys, streamlearn.snapshot; print(sorted({'torch', 'river', 'safetensors'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
