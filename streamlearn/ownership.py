"""Who may write to a state directory: one daemon at a time, and after a take-over the newer one.

A lock keeps two daemons of one machine apart. A process that hangs, or a machine that is cut off, may hold its lock and come
back to life later; so a successor started with `--take-over` raises the *writer epoch*. Names of checkpoints and of journal
segments begin with it and the highest wins, so what the old owner still writes is never used; and it finds out before its next
write, and ends.
"""

import fcntl
import os
from pathlib import Path

from streamlearn.disk import make_folder, replace_file
from streamlearn.errors import CheckpointError


class Ownership:
    """Of a state directory, for as long as the process lives."""

    def __init__(self, state_dir: Path, *, take_over: bool = False) -> None:
        """Errors: CheckpointError when the directory has an owner and is not taken over."""
        self._state_dir = state_dir
        try:
            make_folder(state_dir)
            self._take(state_dir, take_over)
        except OSError as error:
            raise CheckpointError(f"state directory {state_dir} cannot be written: {error}; nothing was started") from error

    def _take(self, state_dir: Path, take_over: bool) -> None:
        self.epoch = _epoch(state_dir) + take_over
        self._file = (state_dir / f"lock-{self.epoch:04d}").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise CheckpointError(
                f"state directory {state_dir} is locked by {owner}: expected to be its only user; end it, or use --take-over"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()
        if take_over:
            _write_epoch(state_dir, self.epoch)

    def holds(self) -> bool:
        """Whether no other daemon has taken over. Costs microseconds; asked before everything that others would see."""
        return _epoch(self._state_dir) == self.epoch

    def check(self) -> None:
        """Errors: CheckpointError when another daemon has taken over."""
        if not self.holds():
            raise CheckpointError(
                f"state directory {self._state_dir} was taken over by a newer daemon (writer epoch {_epoch(self._state_dir)}, "
                f"ours is {self.epoch}): this one writes nothing more and ends"
            )

    def release(self) -> None:
        """Let another daemon in. May be called twice."""
        self._file.close()


def _epoch(state_dir: Path) -> int:
    try:
        return int((state_dir / "epoch").read_text())
    except FileNotFoundError:
        return 1
    except ValueError as error:
        raise CheckpointError(
            f"{state_dir / 'epoch'} holds no number: expected the writer epoch of the newest daemon"
        ) from error


def _write_epoch(state_dir: Path, epoch: int) -> None:
    replace_file(state_dir / "epoch", str(epoch).encode(), after_power_cut="new")
