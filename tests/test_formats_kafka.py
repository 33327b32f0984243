"""One topic of a real Kafka in several formats at once, in envelopes and without: each record is read by what it says it is."""

import base64
import json
from pathlib import Path

import msgspec
import pytest

from benchmarks.reliability.stream import logged
from benchmarks.testbed.forks import Forks
from benchmarks.testbed.small import configured, samples, settled
from tests.conftest import Topics
from tests.registry import registry
from tests.test_avro import record_of
from tests.test_logs import TRACE
from tests.test_registry import framed

SCHEMA = record_of(("features", {"type": "array", "items": "float"}), ("label", "string"))
JSON, AVRO, EVENT = b"application/json", b"avro/binary", b"application/cloudevents+json"


@pytest.mark.timeout(600)
def test_formats_and_envelopes_stand_side_by_side_in_a_topic(
    kafka: str, kafka_topic: Topics, tmp_path: Path, forks: Forks
) -> None:
    from kafka import KafkaProducer  # noqa: PLC0415 - loaded by tests that need a broker alone

    topic, state = kafka_topic(1), tmp_path / "state"
    told = [json.loads(each) for each in samples(60)]
    attributes = {"specversion": "1.0", "source": "/shop", "type": "order"}
    binary = [("content-type", AVRO), ("ce_id", b"e"), *((f"ce_{name}", value.encode()) for name, value in attributes.items())]
    with registry() as fake:
        fake.add(7, SCHEMA)
        ways = (
            lambda each: (json.dumps(each).encode(), [("content-type", JSON)]),
            lambda each: (msgspec.msgpack.encode(each), [("content-type", b"application/msgpack")]),
            lambda each: (framed(7, SCHEMA, each), []),
            lambda each: (framed(7, SCHEMA, each), [*binary[:1], ("ce_id", each["label"].encode() + each["way"]), *binary[2:]]),
            lambda each: (json.dumps(attributes | {"id": each["id"], "data": each}).encode(), [("content-type", EVENT)]),
            lambda each: (
                json.dumps(
                    attributes
                    | {"id": each["id"], "datacontenttype": "avro/binary"}
                    | {"data_base64": base64.b64encode(framed(7, SCHEMA, each)).decode()}
                ).encode(),
                [("content-type", EVENT)],
            ),
        )
        producer = KafkaProducer(bootstrap_servers=kafka)
        for i, each in enumerate(told):
            known = each | {"id": f"s{i}"} if i % 6 not in (2, 3) else each | {"way": b"-%d" % i}
            value, headers = ways[i % 6](known)
            producer.send(topic, value, headers=headers, partition=0)
        old = json.dumps(attributes | {"specversion": "0.3", "id": "x", "data": told[0]}).encode()
        producer.send(topic, old, headers=[("content-type", EVENT), ("traceparent", TRACE.encode())], partition=0)
        producer.close()

        source = {"type": "kafka", "bootstrap_servers": kafka, "topics": [topic]}
        how = {"format": "avro", "avro": {"registry": {"url": fake.url}}}
        config = configured(state, source, decode=how, predictions={"type": "log", "path": str(tmp_path / "answers")})
        life = forks.start("run", config)
        life.until(lambda: settled(state) == 61, "the last record", 240.0)
        life.stop()
        assert fake.asked == ["/schemas/ids/7"]

    answered = {(each.key or b"").decode(): json.loads(each.value or b"")["label"] for each in logged(tmp_path / "answers")}
    assert answered == {f"{topic}[0]@{i}": each["label"] for i, each in enumerate(told)}, "each record with its own label"
    (letter,) = logged(state / "dead_letters.sqlite")
    assert (letter.value, dict(letter.headers)["traceparent"]) == (old, TRACE.encode())
    assert b"CloudEvents '0.3', expected '1.0'" in dict(letter.headers)["__connect.errors.exception.message"]
