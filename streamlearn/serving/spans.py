"""The seam to tracing: one span for each question. Nothing of a library is loaded here."""

from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol, cast


class Spans(Protocol):
    """Made by one server, used in its event loop or thread."""

    def span(self, protocol: str, traceparent: str | None) -> AbstractContextManager[None]:
        """Around one question, which continues the trace that it bears."""

    def answered(self, number: int, rows: int) -> None:
        """Called within a span: the model that answers, and how many rows."""

    def close(self) -> None:
        """Let go. Waits a second at most."""


def spans_of(model_name: str) -> Spans:
    """Those of OpenTelemetry."""
    return cast(Spans, import_module("streamlearn.serving.tracing").Tracing(model_name))
