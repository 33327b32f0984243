"""A recorded stream, for replay: a file is one partition, a folder has a file for each, named `orders[3].jsonl`."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from streamlearn.errors import ConfigError
from streamlearn.protocols import Source
from streamlearn.records import Gap, Positions, Record

PAUSE_S = 0.005  # before those are asked again that are not ready for more
SUFFIXES = (".jsonl", ".csv", ".npz", ".messages")


def partitions(path: Path, wanted: Collection[str] = ()) -> dict[str, Path]:
    """Partition → file. With the names that a journal `wanted`, a single file takes the one name it can be.

    Errors  ConfigError when nothing is there, or not what is wanted.
    """
    if path.is_file():
        name = next(iter(wanted)) if len(wanted) == 1 else _named(path)
        found = {name: path}
    elif path.is_dir():
        found = {_named(each): each for each in sorted(path.iterdir()) if each.suffix in SUFFIXES}
    else:
        raise ConfigError(f"--from {path} is not there: expected a recorded stream, {', '.join(SUFFIXES)}, or a folder of them")
    missing = sorted(set(wanted) - set(found))
    if missing or not found:
        what = f"partition {', '.join(missing)} of the journal" if missing else "any partition"
        raise ConfigError(
            f"--from {path} does not hold {what}: expected a folder with a file like {_example(missing)} for each"
        )
    return found


def _named(path: Path) -> str:
    return path.stem if path.stem.endswith("]") else f"{path.stem}[0]"


def _example(missing: Sequence[str]) -> str:
    return f"'{missing[0] if missing else 'orders[3]'}.jsonl'"


class RecordedSource:
    """The files of a recording as one source; each partition bears the name it was recorded under.

    `first` is the position of each file's first record, where the recording does not begin with the partition.
    """

    def __init__(self, files: Mapping[str, Source], first: Positions, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._files, self._first, self._sleep = files, first, sleep
        self._turn = 0

    def seek(self, positions: Positions) -> None:
        """Errors: SourceError when a file cannot be read."""
        for name, file in self._files.items():
            (own,) = file.positions()
            file.seek({own: max(0, positions.get(name, 0) - self._first[name])})

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """From one file after the other, so that all get their turn."""
        names = list(self._files)
        for _ in names:
            self._turn = (self._turn + 1) % len(names)
            name = names[self._turn]
            if name not in paused and (records := self._files[name].poll(max_records, 0.0)):
                first = self._first[name]
                return [record._replace(partition=name, position=first + record.position) for record in records]
        if not self.exhausted():  # what is left is paused
            self._sleep(min(timeout_s, PAUSE_S))
        return []

    def positions(self) -> Positions:
        """The number of the next line or row of each file."""
        return {name: self._first[name] + sum(file.positions().values()) for name, file in self._files.items()}

    def ends(self) -> Positions:
        """Lines or rows of each file."""
        return {name: self._first[name] + sum(file.ends().values()) for name, file in self._files.items()}

    def identities(self) -> Mapping[str, str]:
        """None: files may be copied."""
        return {}

    def exhausted(self) -> bool:
        """At the end of all files."""
        return all(file.exhausted() for file in self._files.values())

    def gaps(self) -> Sequence[Gap]:
        """None: files have no retention."""
        return []

    def commit(self, positions: Positions) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()
