"""One model as it is served, whatever protocol asks: what answers now, whether it may be asked, and how much at once.

Belongs to one event loop. Each answer takes the current snapshot once, and is computed without giving the loop away.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from streamlearn.errors import SnapshotError
from streamlearn.logs import carried
from streamlearn.records import Json, Snapshot
from streamlearn.serving.access import Access
from streamlearn.serving.counts import Counts
from streamlearn.serving.feedback import AnswerRecords
from streamlearn.serving.forms import form_named
from streamlearn.serving.open_inference import Answer, Question, model_metadata
from streamlearn.serving.served import Forms, Served
from streamlearn.serving.settings import Settings
from streamlearn.serving.spans import Spans
from streamlearn.serving.tensors import RequestError, status_of
from streamlearn.snapshot import Current, Refusals


class OverloadedError(RequestError):
    """Handled as every RequestError; gRPC has a code of its own for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503)


class Endpoint:
    """What every protocol of one server shares: the current snapshot, counts, and the bound on requests in progress."""

    def __init__(
        self,
        current: Current,
        *,
        model_name: str,
        settings: Settings,
        forms: Forms = form_named,
        answers: AnswerRecords | None = None,
        spans: Spans | None = None,
        beside_learner: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`beside_learner`: whoever starts this server again starts the learner again, so that it answers for both."""
        self.model_name, self.settings = model_name, settings
        self.access: Access = settings.access()
        self.counts = Counts()
        self.draining = False
        self._current, self._forms, self._answers, self._clock = current, forms, answers, clock
        self._spans, self._beside_learner = spans, beside_learner
        self._seen: Snapshot | None = None
        self._served: Served | None = None
        self._refusals = Refusals()
        self._bound = _Bound(settings.max_in_progress)
        self.one_a_turn = asyncio.Lock()  # between two answers those are refused that are too many

    def served(self) -> Served | None:
        """What answers now. One that cannot answer is counted and refused; the one before it stays."""
        snapshot = self._current.current()
        if snapshot is not None and snapshot is not self._seen:
            self._seen = snapshot
            try:
                self._served = Served.of(snapshot, self._forms)
                self.counts.served_number, self.counts.served_time_s = snapshot.number, snapshot.published_ms / 1000
                self._refusals.taken(snapshot)
            except SnapshotError as error:
                self.counts.failed_loads += 1
                self._refusals.refused(error, before=None if self._served is None else self._served.snapshot)
        return self._served

    def told(self) -> dict[str, Json]:
        """What this server did so far, as `counts` describes it."""
        lost = 0 if self._answers is None else self._answers.lost
        return self.counts.values(age_s=self._current.age_s(), lost_answers=lost)

    def obstacle(self) -> str | None:
        """Why this server should not be asked, or None."""
        if self.draining:
            return "the server is closing"
        if self.served() is None:
            return self._absence()
        silent_s = self._current.age_s()
        return _silence(silent_s) if silent_s > self.settings.silent_s else None

    def stall(self) -> str | None:
        """Why this server and the learner beside it should be started again, or None."""
        most_s, silent_s = self.settings.stalled_s, self._current.age_s()
        is_stalled = self._beside_learner and most_s is not None and most_s < silent_s < math.inf
        return _silence(silent_s) if is_stalled else None

    def is_ready(self, model: str, version: str | None) -> bool:
        """Whether the model would answer. Errors: RequestError (404) when it, or that version of it, is not served."""
        self.check_model(model)
        served = self.served()
        self._check_version(version, served)
        return self.obstacle() is None and served is not None and served.learned

    def find(self, model: str, version: str | None) -> Served:
        """What answers for that model and version. Errors: RequestError, 404, or 503 before the first snapshot."""
        self.check_model(model)
        served = self.served()
        self._check_version(version, served)
        if served is None:
            raise RequestError(self._absence(), status=503)
        return served

    def metadata(self, model: str, version: str | None) -> Json:
        """What goes in and comes out. Errors: as `find`."""
        snapshot = self.find(model, version).snapshot
        form, shape, schema = snapshot.answering.form, snapshot.shape, snapshot.schema
        return model_metadata(model_name=self.model_name, number=snapshot.number, form=form, shape=shape, schema=schema)

    def answer(self, served: Served, question: Question) -> Answer:
        """From that snapshot alone; recorded where that is asked for. Errors: RequestError."""
        answer = served.answer(question)
        if self._answers is not None:
            self._answers.take(question, answer, served.snapshot.labels)
        self.counts.rows += len(question.x)
        if self._spans is not None:
            self._spans.answered(answer.number, len(question.x))
        return answer

    def counted(self, protocol: str) -> AbstractContextManager[None]:
        """Count an inference request by the status that it ends with, and its time; a span of it, where those are wanted."""
        counted = _Counted(self.counts, self._clock)
        return counted if self._spans is None else _spanned(counted, self._spans.span(protocol, carried()))

    def bounded(self) -> AbstractContextManager[None]:
        """One of the requests in progress. Errors: OverloadedError."""
        return self._bound

    @property
    def in_progress(self) -> int:
        """Requests that are bounded now."""
        return self._bound.now

    def check_model(self, model: str) -> None:
        """Errors: RequestError (404)."""
        if model != self.model_name:
            raise RequestError(f"model {model[:80]!r} is not known: this server has {self.model_name!r}", status=404)

    def _check_version(self, version: str | None, served: Served | None) -> None:
        number = None if served is None else str(served.snapshot.number)
        if version is not None and version != number:
            raise RequestError(f"version {version[:40]!r} is not served: the current one is {number}", status=404)

    def _absence(self) -> str:
        """Why nothing is served. Short: health answers without a token, and a reason may name a path."""
        if self._current.refuses or self._refusals.in_a_row:
            return "the snapshot that is published was refused: the log of this server says why"
        return "no snapshot is published yet"

    def close(self) -> None:
        """Wait for what is being written."""
        if self._answers is not None:
            self._answers.close()
        if self._spans is not None:
            self._spans.close()


def _silence(seconds: float) -> str:
    return f"the learner has been silent for {seconds:.0f} s"


class _Bound(AbstractContextManager[None]):
    """Entered by each request in progress."""

    def __init__(self, most: int) -> None:
        self._most, self.now = most, 0

    def __enter__(self) -> None:
        if self.now >= self._most:
            raise OverloadedError(f"overloaded: {self.now} requests are in progress")
        self.now += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.now -= 1


class _Counted(AbstractContextManager[None]):
    """Around one request."""

    def __init__(self, counts: Counts, clock: Callable[[], float]) -> None:
        self._counts, self._clock, self._begin_s = counts, clock, clock()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._counts.request(status_of(error), self._clock() - self._begin_s)


@contextmanager
def _spanned(counted: AbstractContextManager[None], span: AbstractContextManager[None]) -> Iterator[None]:
    with counted, span:
        yield
