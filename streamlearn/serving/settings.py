"""The keys of `serve` that servers read, in whichever process they run."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, field_validator, model_validator

from streamlearn.serving.access import Access, TokenKeys
from streamlearn.serving.connections import Limits
from streamlearn.settings import key
from streamlearn.share import Share


class Settings(Limits, Share):
    """How questions are answered."""

    host: str = key("127.0.0.1", "address to listen at; beyond loopback, writing needs one of `tokens`")
    port: int = key(8080, "port of HTTP; 0 takes a free one", ge=0, le=65535)
    grpc_port: int | None = key(
        8081,
        "port of gRPC, where grpcio is installed; 0 takes a free one; empty, or beside `port: 0` not given: none",
        ge=0,
        le=65535,
    )
    metrics_port: int | None = key(
        None,
        "port of /metrics of a server that no daemon started (`streamlearn serve`), without tokens; 0: any; empty: none",
        ge=0,
        le=65535,
    )
    tokens: tuple[TokenKeys, ...] = key((), "who may do what, a list of {role, token} or {role, file}; JSON in the environment")
    token: SecretStr | None = key(None, "one token of the role `write`, for short")
    tls_cert: Path | None = key(None, "certificate chain in PEM; with it answers go over TLS alone")
    tls_key: Path | None = key(None, "its private key in PEM; empty: beside the certificate in the same file")
    max_body_bytes: int = key(16 << 20, "largest request body, or message of gRPC", unit="bytes", ge=1)
    max_rows: int = key(1024, "most rows of one request", unit="rows", ge=1)
    max_in_progress: int = key(128, "requests in progress in one server, above which it refuses at once", ge=1)
    silent_s: float = key(30.0, "silence of the learner after which a server is not ready", unit="seconds", gt=0)
    stalled_s: float | None = key(
        300.0,
        "the same after which a server beside it is not live, for orchestrators to start both again; empty: never",
        unit="seconds",
        gt=0,
    )
    otel: bool = key(False, "spans of questions by OpenTelemetry, sent where its variables say (OTEL_EXPORTER_OTLP_ENDPOINT)")
    drain_s: float = key(0.0, "time between not being ready and closing, for load balancers to notice", unit="seconds", ge=0)

    @field_validator("tokens", mode="before")
    @classmethod
    def _from_the_environment(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("expected a list, or a list in JSON") from None  # the value may hold secrets

    @model_validator(mode="after")
    def _key_has_its_certificate(self) -> Self:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is given, but no tls_cert: expected both")
        return self

    @model_validator(mode="after")
    def _is_not_ready_before_it_is_not_live(self) -> Self:
        if self.stalled_s is not None and self.stalled_s < self.silent_s:
            raise ValueError(f"stalled_s is {self.stalled_s:g}: expected silent_s, {self.silent_s:g}, or more")
        return self

    @model_validator(mode="after")
    def _has_what_makes_spans(self) -> Self:
        if self.otel and not (find_spec("opentelemetry") and find_spec("opentelemetry.exporter")):
            raise ValueError("otel is true, but OpenTelemetry is not installed: pip install 'streamlearn[otel]'")
        return self

    @property
    def wanted_grpc_port(self) -> int | None:
        """Where gRPC is to listen. Whoever takes a free port for HTTP, and says nothing of gRPC, has none."""
        return self.grpc_port if self.port or "grpc_port" in self.model_fields_set else None

    def access(self) -> Access:
        """Errors: ConfigError."""
        short = () if self.token is None else (TokenKeys(role="write", token=self.token),)
        return Access((*self.tokens, *short), host=self.host)
