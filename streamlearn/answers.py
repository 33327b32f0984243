"""The answers given before each label was used, written where the configuration says, for whoever wants to audit them."""

from typing import Protocol

import msgspec
import numpy as np

from streamlearn.labels import LabelMap
from streamlearn.protocols import Sink
from streamlearn.records import Array, Batch, Json, LearnReport, Message


class AnswerLog(Protocol):
    """Takes every row that was tested, then trained on."""

    def write(self, batch: Batch, report: LearnReport, *, number: int) -> None:
        """Called after `learn`; `number` is that of the state which answered the first chunk."""

    def flush(self) -> None:
        """Return once all is durable. Called before each checkpoint. Errors: SinkError."""

    def close(self) -> None:
        """Let go. May be called twice."""


class NoAnswerLog:
    """Keeps nothing."""

    def write(self, batch: Batch, report: LearnReport, *, number: int) -> None:
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

    def write(self, batch: Batch, report: LearnReport, *, number: int) -> None:
        """One message a row: place, true and answered label, probability of the answer, number of the state that answered."""
        names = list(self._partitions)
        undone = report.rejected.reshape(-1, self._chunk).any(axis=1).cumsum()
        messages = []
        for i in range(len(batch)):
            learned_before = i // self._chunk - (int(undone[i // self._chunk - 1]) if i >= self._chunk else 0)
            place = f"{names[batch.partitions[i]]}@{batch.at[i]}"
            answer = {"place": place, "label": self._labels.by_row[batch.labels[i]], "model_version": number + learned_before}
            messages.append(Message(msgspec.json.encode(answer | self._answered(report.logits[i])), place.encode()))
        self._sink.write(messages)

    def _answered(self, logits: Array) -> dict[str, Json]:
        if not len(logits):
            return {"answer": None, "probability": None}
        row = int(logits.argmax())
        powers = np.exp(logits.astype(np.float64) - float(logits[row]))
        return {"answer": self._labels.by_row[row], "probability": float(1.0 / powers.sum())}

    def flush(self) -> None:
        """Wait until the sink has everything."""
        self._sink.flush(self._flush_s)

    def close(self) -> None:
        """Let go of the sink."""
        self._sink.close()
