"""What Kafka's source and sink share: the settings handed to kafka-python, secrets among them, and opening without leaks."""

import difflib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient
from pydantic import SecretStr, field_validator

from streamlearn.errors import ConfigError, StreamlearnError
from streamlearn.settings import Section, key

log = structlog.get_logger()

SECRET = ("password", "secret", "token")
FROM_FILE = "_file"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
OWNED = {
    *("bootstrap_servers", "bootstrap_timeout_ms", "group_id", "group_instance_id", "enable_auto_commit", "auto_offset_reset"),
    *("isolation_level", "allow_auto_create_topics", "metadata_max_age_ms", "max_poll_records", "consumer_timeout_ms"),
    *("partition_assignment_strategy", "partitioner", "key_deserializer", "value_deserializer", "key_serializer"),
    *("value_serializer", "acks", "enable_idempotence", "transactional_id", "compression_type", "delivery_timeout_ms"),
    *("linger_ms", "max_block_ms", "kafka_client", "selector", "metric_reporters", "ssl_context", "fetch_max_bytes"),
    *("fetch_max_wait_ms", "reconnect_backoff_max_ms", "max_poll_interval_ms", "client_id"),
    *("auto_commit_interval_ms", "sasl_oauth_token_provider", "default_offset_commit_callback"),
}
"""Settings of kafka-python that are ours to decide, that have a key of their own, or that no configuration file can hold."""


class Connection(Section):
    """How to reach Kafka."""

    bootstrap_servers: str = key("127.0.0.1:9092", "host:port of one or more brokers, separated by commas")
    timeout_s: float = key(10.0, "longest wait for the cluster's answer before the source counts as lost", unit="s", gt=0)
    client: Mapping[str, Any] = key(
        {},
        "settings handed to kafka-python under its own names, such as security_protocol, ssl_cafile, sasl_mechanism;"
        " NAME_file reads the secret NAME from a file",
        repr=False,
    )

    @field_validator("client")
    @classmethod
    def _known(cls, client: Mapping[str, Any]) -> Mapping[str, Any]:
        known = (set(KafkaConsumer.DEFAULT_CONFIG) | set(KafkaProducer.DEFAULT_CONFIG)) - OWNED
        known |= {name + FROM_FILE for name in known if _is_secret(name)}
        for name in client:
            if name in OWNED:
                raise ValueError(f"'{name}' is not for you to set here: the program decides it, or has a key for it")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                raise ValueError(f"'{name}' is no setting of kafka-python" + (f": did you mean '{near[0]}'?" if near else ""))
        protocol = client.get("security_protocol", "PLAINTEXT")
        if protocol not in PROTOCOLS:  # kafka-python takes any other for PLAINTEXT
            raise ValueError(f"security_protocol is '{protocol}', expected {', '.join(PROTOCOLS)}")
        if "sasl_mechanism" in client and "SASL" not in protocol:
            raise ValueError(
                f"sasl_mechanism has no effect when security_protocol is {protocol}: expected SASL_SSL or SASL_PLAINTEXT"
            )
        return {name: SecretStr(str(value)) if _is_secret(name) else value for name, value in client.items()}

    def upstream(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for a client class that knows `names`; secrets are read now. Errors: ConfigError."""
        plain = {name: _revealed(name, value) for name, value in self.client.items()}
        plain = {name.removesuffix(FROM_FILE) if name not in names else name: value for name, value in plain.items()}
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "bootstrap_timeout_ms": int(1000 * self.timeout_s),
            "client_id": "streamlearn",
            "reconnect_backoff_max_ms": 2000,
            **{name: value for name, value in plain.items() if name in names},
        }


def connect(make: Callable[..., Any], settings: dict[str, Any], failure: type[StreamlearnError]) -> tuple[Any, KafkaNetClient]:
    """A client and the network below it. When it cannot be made nothing stays behind: thread and sockets are closed.

    Errors  ConfigError for settings that can never work, `failure` for a cluster that does not answer.
    """
    if importlib.util.find_spec("crc32c") is None:
        log.warning("kafka.slow", reason="the package crc32c is not installed: checking records takes 12 to 22 times longer")
    networks: list[KafkaNetClient] = []

    def network(**configs: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**configs))
        creates = configs["allow_auto_create_topics"]  # kafka-python 3.0.12 takes this setting and forgets it
        networks[-1].cluster.config["allow_auto_create_topics"] = creates
        return networks[-1]

    with _last_complaint() as complaint:
        try:
            return make(**settings, kafka_client=network), networks[0]
        except (KafkaError, ValueError, TypeError, OSError, RuntimeError, AssertionError) as error:
            for leaked in networks:
                leaked.close()
            if not isinstance(error, KafkaError) or isinstance(error, KafkaConfigurationError):
                raise ConfigError(f"kafka-python cannot work with these settings: {error}") from error
            raise failure(f"kafka {','.join(settings['bootstrap_servers'])}: {complaint.text or error}") from error


class _Complaint(logging.Handler):
    """Keeps why the last connection failed: kafka-python logs that, and then raises only that it failed."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Connection failed"):
            self.text = record.getMessage()


@contextmanager
def _last_complaint() -> Iterator[_Complaint]:
    complaint = _Complaint(logging.WARNING)
    logger = logging.getLogger("kafka.net.manager")
    logger.addHandler(complaint)
    try:
        yield complaint
    finally:
        logger.removeHandler(complaint)


def _is_secret(name: str) -> bool:
    return any(word in name for word in SECRET)


def _revealed(name: str, value: Any) -> Any:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not (_is_secret(name) and name.endswith(FROM_FILE)):
        return plain
    try:
        return Path(plain).read_text().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"client.{name} names a file that cannot be read: {error.strerror}") from error
