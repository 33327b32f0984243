"""Files that are seen whole or not at all, and names that outlive a power cut.

`fsync` of a file keeps its bytes, not its name: that is the folder's to keep.
"""

import os
from pathlib import Path
from typing import Literal

from streamlearn.errors import CheckpointError


def make_folder(folder: Path) -> None:
    """The folder is there, and so is its name after a power cut, with those of all that had to be made above it.

    Errors  CheckpointError.
    """
    if not folder.parent.exists():
        make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise CheckpointError(f"folder {folder} cannot be made: {error}; expected one that can be written to") from error


def replace_file(path: Path, content: bytes, *, after_power_cut: Literal["anything", "old or new", "new"] = "anything") -> None:
    """Readers see the old content or the new, never a part; so does who comes after a power cut, where that is asked for.

    The old stays when this fails, and nothing is left beside it. Errors: OSError.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")  # another process may replace it at the same time
    try:
        if after_power_cut == "anything":
            beside.write_bytes(content)
        else:
            write_file(beside, content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if after_power_cut == "new":
        sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """The bytes are durable; the name is after `sync_folder`."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """The names in a folder are durable as they are now."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
