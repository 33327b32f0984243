"""Labels that come late by HTTP, and answers that were given, both as records for the learner: it alone joins them."""

import queue
import threading
from collections.abc import Callable

import msgspec
import numpy as np
import structlog

from streamlearn.errors import SinkError
from streamlearn.records import ANSWER, LABEL, Label, Message
from streamlearn.serving.open_inference import Answer, Question, RequestError
from streamlearn.serving.samples import Integer, Text, WriteSamples, one_or_many

QUEUED = 1000  # answers that wait to be written; above that they are left out, and counted
HEADERS = (("content-type", b"application/json"), *LABEL)

log = structlog.get_logger()


class _Feedback(msgspec.Struct, omit_defaults=True):
    id: Text | Integer
    label: Text | Integer
    time: Integer | msgspec.UnsetType = msgspec.UNSET


_ONE, _LIST = msgspec.json.Decoder(_Feedback), msgspec.json.Decoder(list[_Feedback])


def read_feedback(body: bytes, *, max_rows: int) -> list[Message]:
    """One message for each late label of a JSON object or a list of them: `{id, label, time?}`.

    Errors  RequestError (400); then none of them is taken.
    """
    try:
        given = one_or_many(body, _ONE, _LIST, what="labels", max_rows=max_rows)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is no feedback: {error}; expected {{id, label, time?}} or a list of them") from error
    return [Message(msgspec.json.encode(each), str(each.id).encode(), HEADERS) for each in given]


class AnswerRecords:
    """Writes what was answered to questions with an id, in a thread of its own: no answer waits for it.

    Row i of a request of several rows has the id `ID/i`. What does not fit into the queue, or cannot be written, is lost,
    and the log says so: the learner then scores the answer that it gave itself when the sample came.
    """

    def __init__(self, write: WriteSamples, *, queued: int = QUEUED) -> None:
        self._without_room = self._unwritten = 0  # rows, each counted by one thread alone
        self._overflows = 0  # questions
        self._write = write
        self._queue: queue.Queue[list[Message] | None] = queue.Queue(queued)
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Rows whose answers were not recorded."""
        return self._without_room + self._unwritten

    def take(self, question: Question, answer: Answer, labels: tuple[Label, ...]) -> None:
        """Called with each answer. Returns at once."""
        if question.id is None:
            return
        try:
            self._queue.put_nowait(_messages(question, answer, labels))
        except queue.Full:
            self._without_room += len(question.x)
            self._overflows += 1
            if self._overflows.bit_count() == 1:  # the 1st, 2nd, 4th, …: each question may be one
                log.warning("answers.not_written", error=f"{self._queue.maxsize} wait to be written", lost=self.lost)

    def close(self) -> None:
        """Write what is queued."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            first = self._queue.get()
            taken, going = _rest(first, self._queue.get_nowait)
            try:
                if taken:
                    self._write(taken)
            except SinkError as error:
                self._unwritten += len(taken)
                log.warning("answers.not_written", error=str(error), lost=self.lost)


def _rest(first: list[Message] | None, more: Callable[[], list[Message] | None]) -> tuple[list[Message], bool]:
    """All that is queued now, for one write; whether there may be more later."""
    taken: list[Message] = []
    each = first
    while each is not None:
        taken += each
        try:
            each = more()
        except queue.Empty:
            return taken, True
    return taken, False


def _messages(question: Question, answer: Answer, labels: tuple[Label, ...]) -> list[Message]:
    many, messages = len(question.x) > 1, []
    for i, x in enumerate(question.x):
        id_ = f"{question.id}/{i}" if many else str(question.id)
        values = {
            "id": id_,
            "features": np.ascontiguousarray(x, "<f4").tobytes(),
            "number": answer.number,
            "label": labels[int(answer.rows[i])],
            "probabilities": np.ascontiguousarray(answer.probabilities[i], "<f4").tobytes(),
        }
        messages.append(Message(msgspec.msgpack.encode(values), id_.encode(), ANSWER))
    return messages
