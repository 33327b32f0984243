"""A file that is replaced: whole or not at all for readers, and, where that is asked for, after a power cut."""

import os
from pathlib import Path

import pytest

from streamlearn.disk import replace_file


def test_readers_see_the_old_file_or_the_new_one_and_nothing_is_left_beside(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("after_power_cut", "expected"),
    [
        ("anything", ["rename"]),
        ("old or new", ["sync .PID.file", "rename"]),
        ("new", ["sync .PID.file", "rename", "sync FOLDER"]),
    ],
)
def test_bytes_are_durable_before_their_name_and_the_name_when_it_returns(tmp_path, monkeypatch, after_power_cut, expected):
    done, replace = [], Path.replace

    def synced(handle):
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")

    def renamed(beside, path):
        done.append("rename")
        return replace(beside, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace_file(tmp_path / "file", b"new", after_power_cut=after_power_cut)
    assert [each.replace(str(os.getpid()), "PID").replace(tmp_path.name, "FOLDER") for each in done] == expected


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.mkdir()
    with pytest.raises(OSError, match="file"):
        replace_file(in_the_way, b"new", after_power_cut="new")
    assert list(tmp_path.iterdir()) == [in_the_way]
    assert in_the_way.is_dir()
