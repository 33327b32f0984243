"""What the process says of itself: one line an event on standard error, JSON for machines, text for people.

Lines of the learner's thread bear where it is: partition and position of the run of records that it works on, and the version
of the model. Those of a request or of a record bear its `traceparent`. What other libraries say from warnings on is a line too.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars, merge_contextvars

TRACE = "traceparent"
_SHARED: tuple[structlog.typing.Processor, ...] = (
    merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)
_told = {"details": False}


def configure(level: str = "info", format_: Literal["json", "text"] = "json") -> None:
    """From now on, in this process; also for what other libraries say, from warnings on."""
    shown: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if format_ == "text":
        shown = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*_SHARED, shown],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _told["details"] = level == "debug"
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _Others)] + [_Others(shown)]


def details() -> bool:
    """Whether each turn and each snapshot says a line."""
    return _told["details"]


def at(**values: Any) -> None:
    """What all further lines of this thread bear, until it is told anew."""
    bind_contextvars(**values)


@contextmanager
def carrying(traceparent: str | None) -> Iterator[None]:
    """Lines in here bear the trace, where there is one."""
    if traceparent is None:
        yield
        return
    with bound_contextvars(**{TRACE: traceparent}):
        yield


def carried() -> str | None:
    """The trace of what is being done here."""
    found: str | None = get_contextvars().get(TRACE)
    return found


class Sometimes:
    """At most `most` lines in a second, however many there would be; those left out are counted."""

    def __init__(self, most: int = 20, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._since_s, self._said, self.left_out = clock(), 0, 0

    def __call__(self) -> bool:
        """Whether the next line may be said."""
        if self._clock() - self._since_s >= 1.0:
            self._since_s, self._said = self._clock(), 0
        self._said += 1
        if self._said > self._most:
            self.left_out += 1
            return False
        return True

    def take_left_out(self) -> int:
        """How many were left out since the last call."""
        left_out, self.left_out = self.left_out, 0
        return left_out


class _Others(logging.Handler):
    """Lines of libraries that use the standard library's logging."""

    def __init__(self, shown: structlog.typing.Processor) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_logger_name, *_SHARED],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, shown],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """On standard error as it is now."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except ValueError:  # it is closed: the process ends
            return
