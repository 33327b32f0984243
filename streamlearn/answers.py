"""The answers given before each label was used, written where the configuration says, for whoever wants to audit them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec
import numpy as np

from streamlearn.labels import LabelMap
from streamlearn.protocols import Sink
from streamlearn.records import Array, Batch, Json, LearnReport, Message, Record

NONE: Mapping[int, int] = MappingProxyType({})
MAX_TRACES = 10_000  # of records that were read and not learned yet; what waits longer is answered without its trace


class AnswerLog(Protocol):
    """Takes every row that was tested, then trained on."""

    def saw(self, records: Sequence[Record]) -> None:
        """Called with each run of records before any of it is learned."""

    def write(self, batch: Batch, report: LearnReport, *, number: int, earlier: Mapping[int, int] = NONE) -> None:
        """Called after `learn`; `number` is that of the state which answered the first chunk.

        `earlier` has the numbers of the rows that were answered when they came, long before their label.
        """

    def flush(self) -> None:
        """Return once all is durable. Called before each checkpoint. Errors: SinkError."""

    def close(self) -> None:
        """Let go. May be called twice."""


class NoAnswerLog:
    """Keeps nothing."""

    def saw(self, records: Sequence[Record]) -> None:
        """Nothing to do."""

    def write(self, batch: Batch, report: LearnReport, *, number: int, earlier: Mapping[int, int] = NONE) -> None:
        """Nothing to do."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class AnswersTo:
    """Writes one JSON message a row. Its key is the record's place: a replay after a crash writes the same again."""

    def __init__(self, sink: Sink, labels: LabelMap, partitions: dict[str, int], *, chunk: int, flush_s: float = 10.0) -> None:
        self._sink, self._labels, self._partitions = sink, labels, partitions
        self._chunk, self._flush_s = chunk, flush_s
        self._traces: dict[str, bytes] = {}  # by place

    def saw(self, records: Sequence[Record]) -> None:
        """Remember which trace a record belongs to, for its answer. No part of the state: a crash may lose it."""
        for record in records:
            if record.headers and (trace := record.traceparent):
                self._traces[record.place] = trace.encode()
                if len(self._traces) > MAX_TRACES:
                    del self._traces[next(iter(self._traces))]

    def write(self, batch: Batch, report: LearnReport, *, number: int, earlier: Mapping[int, int] = NONE) -> None:
        """One message a row: place, true and answered label, probability of the answer, number of the state that answered."""
        names = list(self._partitions)
        undone = report.rejected.reshape(-1, self._chunk).any(axis=1).cumsum()
        messages = []
        for i in range(len(batch)):
            learned_before = i // self._chunk - (int(undone[i // self._chunk - 1]) if i >= self._chunk else 0)
            place = f"{names[batch.partitions[i]]}@{batch.at[i]}"
            version = earlier.get(i, number + learned_before)
            answer = {"place": place, "label": self._labels.by_row[batch.labels[i]], "model_version": version}
            trace = self._traces.pop(place, None) if self._traces else None
            headers = () if trace is None else (("traceparent", trace),)
            messages.append(Message(msgspec.json.encode(answer | self._answered(report.logits[i])), place.encode(), headers))
        self._sink.write(messages)

    def _answered(self, logits: Array) -> dict[str, Json]:
        learned = np.isfinite(logits)  # how many labels are known beside them depends on what a poll returned
        if not learned.any():
            return {"answer": None, "probability": None}
        row = int(np.where(learned, logits, -np.inf).argmax())
        powers = np.exp(logits[learned].astype(np.float64) - float(logits[row]))
        return {"answer": self._labels.by_row[row], "probability": float(1.0 / powers.sum())}

    def flush(self) -> None:
        """Wait until the sink has everything."""
        self._sink.flush(self._flush_s)

    def close(self) -> None:
        """Let go of the sink."""
        self._sink.close()
