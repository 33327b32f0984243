"""The tree of errors. The class says who handles it; the message says where, what was found, what was expected."""


class StreamlearnError(Exception):
    """Anything this program raises on purpose. `exit_code` is what `streamlearn` ends with when nobody handles it."""

    exit_code = 70


class ConfigError(StreamlearnError):
    """Handled by `cli`: one line on stderr. Wrong usage, wrong configuration, or a port in use."""

    exit_code = 2


class SourceError(StreamlearnError):
    """Handled by the prefetch thread: retried with back-off; ends the process only past `source.give_up_s`."""

    exit_code = 3


class PositionLostError(SourceError):
    """A saved position that the upstream no longer holds, or never held. No retry can help: the process stops and says so."""


class SinkError(StreamlearnError):
    """Handled where records are written: retried with back-off; nothing passes a checkpoint before it is written."""

    exit_code = 3


class DecodeError(StreamlearnError):
    """Handled by the loop: the record is counted and goes to the dead letters; its neighbours are learned."""

    exit_code = 3


class MemoryShortError(StreamlearnError):
    """Handled by the loop: fewer rows are learned at once, and what cannot be learned even so goes to the dead letters."""


class SnapshotError(StreamlearnError):
    """Handled by servers: the file is counted as failed and the snapshot before it stays."""


class CheckpointError(StreamlearnError):
    """Handled by `daemon`: refuse to start, rather than start empty. Also a locked state directory."""

    exit_code = 4


class DiskError(CheckpointError):
    """Handled by `daemon`: it learns nothing until the disk takes what is written, and then goes on."""
