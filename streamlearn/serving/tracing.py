"""Spans of OpenTelemetry, one for each question, from its coming to its answer. Loaded where `serve.otel` asks for it.

A question that bears a `traceparent` continues that trace. Where spans go OpenTelemetry's own variables say
(`OTEL_EXPORTER_OTLP_ENDPOINT` and its like); they are sent by a thread of their own, and what cannot be sent is dropped.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamlearn import __version__
from streamlearn.serving.tensors import status_of

CLOSE_S = 1.0  # how long the end of the process waits for the last spans to be sent


class Tracing:
    """Makes spans. With an `exporter` each is given to it at once, else they are sent over OTLP, many together."""

    def __init__(self, model_name: str, exporter: SpanExporter | None = None) -> None:
        told = {"service.name": "streamlearn", "service.version": __version__}
        self._provider = TracerProvider(resource=Resource(told).merge(Resource.create()), shutdown_on_exit=False)
        sent: Any = BatchSpanProcessor(OTLPSpanExporter()) if exporter is None else SimpleSpanProcessor(exporter)
        self._provider.add_span_processor(sent)
        self._tracer = self._provider.get_tracer("streamlearn", __version__)
        self._propagator, self._name = TraceContextTextMapPropagator(), model_name

    @contextmanager
    def span(self, protocol: str, traceparent: str | None) -> Iterator[None]:
        """Around one question; it bears the status that the question ends with."""
        parent = self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
        told = {"streamlearn.model": self._name, "network.protocol.name": protocol}
        with self._tracer.start_as_current_span(
            "infer", parent, SpanKind.SERVER, told, record_exception=False, set_status_on_exception=False
        ) as span:
            ended: BaseException | None = None
            try:
                yield
            except BaseException as error:
                ended = error
                raise
            finally:
                status = status_of(ended)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))

    def answered(self, number: int, rows: int) -> None:
        """Within a span: which model answered, and how much."""
        get_current_span().set_attributes({"streamlearn.model_version": number, "streamlearn.rows": rows})

    def close(self) -> None:
        """Send what is left, as far as that goes in a second."""
        last = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(CLOSE_S)
