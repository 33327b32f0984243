"""A question that came as a record → the reply that goes out as one. Pure but for the endpoint that answers.

The value of a question is what the body of an HTTP inference request would be, and that of its reply what the body of the
answer would be. The header `inference-header-content-length` stands for the one of the same name. A reply bears back, byte
for byte, what its sender knows it by.
"""

import msgspec

from streamlearn.logs import carrying
from streamlearn.records import Headers, Message, Record
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.open_inference import JSON_LENGTH, json_length, read_question, write_answer
from streamlearn.serving.tensors import RequestError

CORRELATION = ("correlation-id", "kafka_correlationId", "traceparent", "tracestate")
"""Headers of a question that its reply bears too: ours, Spring's, and those of W3C Trace Context."""
PLACE = "streamlearn-request"


def replied(record: Record, endpoint: Endpoint) -> Message:
    """The reply: an answer, or an error that says what was found and what was expected.

    Its key is that of the question. Its headers say to which question it belongs (`streamlearn-request`, a place that no other
    question ever has), how it ended (`status`, as HTTP has it), and which model of which version answered.
    """
    headers: Headers = tuple((name, value) for name, value in record.headers if name in CORRELATION)
    headers += ((PLACE, record.place.encode()), ("model-name", endpoint.model_name.encode()))
    try:
        with carrying(record.traceparent), endpoint.counted("kafka"):
            value, more = _answered(record, endpoint)
        status = 200
    except RequestError as error:
        value, more, status = msgspec.json.encode({"error": str(error)}), (), error.status
    return Message(value, record.key, (*headers, *more, ("status", str(status).encode())))


def _answered(record: Record, endpoint: Endpoint) -> tuple[bytes, Headers]:
    settings, body = endpoint.settings, record.value
    if body is None or len(body) > settings.max_body_bytes:
        found = "no value" if body is None else f"{len(body)} bytes"
        raise RequestError(
            f"the question has {found}, expected an inference request of at most {settings.max_body_bytes} bytes"
        )
    told = next((value.decode("latin-1") for name, value in record.headers if name.lower() == JSON_LENGTH), None)
    served = endpoint.find(endpoint.model_name, None)
    shape, schema = served.snapshot.shape, served.snapshot.schema
    question = read_question(body, json_bytes=json_length(told), shape=shape, max_rows=settings.max_rows, schema=schema)
    answer = endpoint.answer(served, question)
    content, length = write_answer(answer, question, model_name=endpoint.model_name)
    version: Headers = (("model-version", str(answer.number).encode()),)
    return content, version if length is None else (*version, (JSON_LENGTH, str(length).encode()))
