"""What Kafka's source and sink share: the settings handed to kafka-python, secrets among them, and opening without leaks."""

import difflib
import importlib.util
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
    UnsupportedCodecError,
)
from kafka.net.compat import KafkaNetClient
from pydantic import SecretStr, field_validator

from streamlearn.errors import ConfigError, StreamlearnError
from streamlearn.settings import Section, is_secret, key

log = structlog.get_logger()

FROM_FILE = "_file"
KEY_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
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
        known |= {name + FROM_FILE for name in known if is_secret(name)}
        for name in client:
            if name in OWNED:
                raise ValueError(f"'{name}' is not for you to set here: the program decides it, or has a key for it")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                raise ValueError(f"'{name}' is no setting of kafka-python" + (f": did you mean '{near[0]}'?" if near else ""))
        protocol = client.get("security_protocol", "PLAINTEXT")
        if protocol not in PROTOCOLS:  # kafka-python takes any other for PLAINTEXT
            raise ValueError(f"security_protocol is '{protocol}', expected {', '.join(PROTOCOLS)}")
        told = client.get("api_version")
        if told is not None and not (isinstance(told, Sequence) and all(type(n) is int for n in told) and len(told) in {2, 3}):
            raise ValueError(f"api_version is {told!r}, expected numbers such as [2, 3]; left out, the broker is asked")
        if "sasl_mechanism" in client and "SASL" not in protocol:
            raise ValueError(
                f"sasl_mechanism has no effect when security_protocol is {protocol}: expected SASL_SSL or SASL_PLAINTEXT"
            )
        return {name: _hidden(name, value) if is_secret(name) else value for name, value in client.items()}

    def upstream(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for a client class that knows `names`; secrets and keys are read now. Errors: ConfigError."""
        plain = {name: _revealed(name, value) for name, value in self.client.items()}
        if "api_version" in plain:
            plain["api_version"] = tuple(plain["api_version"])
        plain = {name.removesuffix(FROM_FILE) if name not in names else name: value for name, value in plain.items()}
        _check_keys(plain)
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
        creates = configs.get("allow_auto_create_topics", False)  # kafka-python 3.0.12 takes this setting and forgets it
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
            why = explained(complaint.text or str(error), str(settings.get("security_protocol", "PLAINTEXT")))
            raise failure(f"kafka {','.join(settings['bootstrap_servers'])}: {why}") from error


CLOSED = "socket disconnected"
"""All that kafka-python 3.0.12 tells of a refused password: an answer that comes with the end of the connection is dropped."""


NOT_KAFKA = "InvalidReceiveError"
"""kafka-python's word for bytes that are no answer of Kafka's: a TLS listener's alert, read as the length of one."""


SIGNING_IN = ("AuthenticationFailed", "UnsupportedSaslMechanism", "IllegalSaslState")
"""What a broker answers to who may not sign in, where the answer is read before the connection's end."""


def explained(complaint: str, protocol: str) -> str:
    """What a client said, and what it probably means."""
    if "CERTIFICATE_REQUIRED" in complaint or "ALERT_BAD_CERTIFICATE" in complaint:
        return (
            f"{complaint}: the broker wants a certificate of the client that it trusts: client.ssl_certfile, client.ssl_keyfile"
        )
    if not any(word in complaint for word in (CLOSED, NOT_KAFKA, *SIGNING_IN)):
        return complaint
    if "SASL" in protocol:
        return f"{complaint} while signing in: user, password or mechanism is refused, or the listener expects another protocol"
    return f"{complaint}: the listener probably expects another client.security_protocol than {protocol}"


def reason(error: BaseException) -> str:
    """What went wrong, and what to do where that is known."""
    if isinstance(error, UnsupportedCodecError):
        return f"{error}; install the codecs: streamlearn[kafka-codecs]"
    said = str(error).removesuffix(": None") or type(error).__name__
    return f"{said}: this user has no right to it" if isinstance(error, AuthorizationError) else said


class _Complaint(logging.Handler):
    """Keeps why the last connection failed: kafka-python logs that, and then raises only that it failed.

    That time ran out is kept only where nothing else was said.
    """

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not str(record.msg).startswith(("Connection failed", "Bootstrap connection")):
            return
        reason = _reason(record)
        if not (self.text and isinstance(reason, (KafkaTimeoutError, RequestTimedOutError))):
            self.text = f"Connection failed: {reason}"


def _reason(record: logging.LogRecord) -> object:
    """The exception that a line of the log tells of."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return next((each for each in arguments if isinstance(each, BaseException)), record.getMessage())


@contextmanager
def _last_complaint() -> Iterator[_Complaint]:
    complaint = _Complaint(logging.WARNING)
    logger = logging.getLogger("kafka.net.manager")
    logger.addHandler(complaint)
    try:
        yield complaint
    finally:
        logger.removeHandler(complaint)


def _hidden(name: str, value: Any) -> SecretStr:
    if not isinstance(value, str):  # YAML makes 83 of 0123 and true of yes, and nobody could say why it is refused
        raise ValueError(
            f"{name} is no text: put it in quotes, or name a file that holds it by {name.removesuffix(FROM_FILE)}_file"
        )
    return SecretStr(value)


def _check_keys(client: Mapping[str, Any]) -> None:
    """Certificates and keys are there and open: a client would only time out, or ask at the terminal for a password."""
    if not any(client.get(name) for name in KEY_FILES):
        return
    for name in KEY_FILES:
        try:
            with Path(client.get(name) or "/dev/null").open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"client.{name} names a file that cannot be read: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=client.get("ssl_cafile"))
        if "ssl_certfile" in client:
            context.load_cert_chain(client["ssl_certfile"], client.get("ssl_keyfile"), client.get("ssl_password") or "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"the keys under client do not open: {error.reason or error}; expected PEM files, of which ssl_keyfile is the key"
            " of ssl_certfile and opens with ssl_password"
        ) from error


def _revealed(name: str, value: Any) -> Any:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not (is_secret(name) and name.endswith(FROM_FILE)):
        return plain
    try:
        return Path(plain).read_text().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"client.{name} names a file that cannot be read: {error.strerror}") from error
