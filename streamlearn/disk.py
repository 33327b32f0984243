"""Files and names that outlive a power cut. `fsync` of a file keeps its bytes, not its name: that is the folder's to keep."""

import os
from pathlib import Path

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
