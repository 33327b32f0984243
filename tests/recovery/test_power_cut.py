"""What a power cut leaves is always a whole state, in small; `python -m benchmarks.reliability power` tries every one."""

import random
import shutil
from pathlib import Path

import pytest

from benchmarks.reliability import power
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.disk import Disk, Op

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace, which shows what a process does to its disk")


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_start_from_what_a_power_cut_leaves_goes_on_from_a_whole_state(partitions, tmp_path):
    bench = Bench(tmp_path, quick=True)
    bench.room("cut")
    assert power.power_fails(bench, partitions).runs == 40
    bench.close()


def found(ops, samples=50):
    disk = Disk(Path("/d"))
    for op in ops:
        disk.do(op)
    return list(disk.after_a_cut(random.Random(0), samples))


def test_the_model_keeps_what_was_synced_and_may_lose_each_part_of_what_was_not():
    written = [Op("create", "/d/a"), Op("write", "/d/a", data=b"abcd")]
    states = found(written)
    assert {} in states
    assert {"a": b"abcd"} in states
    assert {"a": b""} in states, "a name without its data"
    assert any(state.get("a") in (b"a", b"ab", b"abc") for state in states), "a torn write"
    states = found([*written, Op("sync", "/d/a")])
    assert all(state in ({}, {"a": b"abcd"}) for state in states), "data is durable, its name is not"
    states = found([*written, Op("sync", "/d/a"), Op("sync", "/d")])
    assert all(state == {"a": b"abcd"} for state in states)


def test_a_rename_happens_or_not_and_a_hole_is_left_where_a_write_is_missing():
    base = [Op("create", "/d/a"), Op("write", "/d/a", data=b"ab"), Op("sync", "/d/a"), Op("sync", "/d")]
    states = found([*base, Op("rename", "/d/a", "/d/b")])
    assert {tuple(state) for state in states} == {("a",), ("b",)}
    states = found([*base, Op("write", "/d/a", at=2, data=b"cd"), Op("write", "/d/a", at=4, data=b"ef")])
    assert {"a": b"ab\0\0ef"} in states
