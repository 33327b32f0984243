"""Who may ask for what: bearer tokens with roles, held in the configuration, the environment, or files that may change.

    read    answers, metadata, status; open to all until a token of this role is configured
    write   samples and whatever else is learned from; without any token open to this machine alone
    admin   whatever changes what is served

Each role may do what those before it may. Health needs no token: who asks for it has none.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeAlias

import structlog
from pydantic import SecretStr, model_validator

from streamlearn.errors import ConfigError
from streamlearn.serving.open_inference import RequestError
from streamlearn.settings import Section, key

Role: TypeAlias = Literal["read", "write", "admin"]
ROLES: Sequence[Role] = ("read", "write", "admin")
MAX_FILE_BYTES = 64 << 10
SHORTEST = 16

log = structlog.get_logger()


class TokenKeys(Section):
    """One token, or a file of them."""

    role: Role = key(..., "read, write or admin; each may do what those before it may")
    token: SecretStr | None = key(None, "the token itself")
    file: Path | None = key(None, "file with a token a line; read again whenever it changes")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.token is None) == (self.file is None):
            raise ValueError("expected either token or file beside the role")
        return self


class Access:
    """Checks what a request brings. Tokens are compared by their digests, all of them, in constant time."""

    def __init__(self, tokens: Sequence[TokenKeys], *, host: str) -> None:
        """Errors: ConfigError for a file that cannot be read or holds no token, or a token that could be guessed."""
        self._host = host
        self._given = [(each.role, _digest(_checked(each.token.get_secret_value()))) for each in tokens if each.token]
        self._files = [(each.role, _TokenFile(each.file)) for each in tokens if each.file]
        self._is_read_open = not any(each.role == "read" for each in tokens)

    @property
    def has_writer(self) -> bool:
        """Whether any token lets somebody write, or nobody but this machine can ask."""
        roles = {role for role, _ in (*self._given, *self._files)}
        return is_loopback(self._host) or not roles.isdisjoint(("write", "admin"))

    def check(self, headers: Mapping[str, str], role: Role) -> None:
        """Errors: RequestError, 401 without a token that is known, 403 with one whose role is not enough."""
        if role == "read" and self._is_read_open:
            return
        if not (self._given or self._files):
            self._check_local(headers, role)
            return
        found = self._role(headers.get("authorization", ""))
        if found is None:
            raise RequestError(f"this needs a token of the role {role!r}: 'Authorization: Bearer TOKEN'", status=401)
        if ROLES.index(found) < ROLES.index(role):
            raise RequestError(f"this needs the role {role!r}, the token has {found!r}", status=403)

    def _check_local(self, headers: Mapping[str, str], role: Role) -> None:
        """A page in somebody's browser can post to loopback; it cannot hide its origin, and knows no token."""
        if not is_loopback(self._host):
            raise RequestError(f"this needs a token of the role {role!r}, and serve.tokens holds none: nobody may", status=401)
        if "origin" in headers:
            raise RequestError("web pages may not do this without a token", status=403)

    def _role(self, authorization: str) -> Role | None:
        scheme, _, token = authorization.partition(" ")
        digest = _digest(token.strip())
        matching = [role for role, known in self._known() if hmac.compare_digest(known, digest)]
        return max(matching, key=ROLES.index) if matching and scheme.lower() == "bearer" else None

    def _known(self) -> Iterator[tuple[Role, bytes]]:
        yield from self._given
        for role, file in self._files:
            for digest in file.digests():
                yield role, digest


class _TokenFile:
    """The tokens of a file as it is now. One that cannot be read any more holds none: it may have been taken away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = self._identity()
        self._digests = self._read()

    def digests(self) -> Sequence[bytes]:
        found = self._identity()
        if found != self._seen:
            self._seen = found
            try:
                self._digests = self._read()
            except ConfigError as error:
                self._digests = ()
                log.error("tokens.refused", error=str(error), next_step="its tokens count no more until the file is mended")
        return self._digests

    def _read(self) -> Sequence[bytes]:
        try:
            with self._path.open("rb") as file:
                lines = file.read(MAX_FILE_BYTES).decode().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"serve.tokens: {self._path} cannot be read ({type(error).__name__})") from None
        tokens = [_checked(line.strip(), where=str(self._path)) for line in lines if line.strip()]
        if not tokens:
            raise ConfigError(f"serve.tokens: {self._path} holds no token: expected one a line")
        return tuple(map(_digest, tokens))

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(token: str, where: str = "a token") -> str:
    if len(token) < SHORTEST or not token.isascii() or any(c.isspace() for c in token):
        raise ConfigError(f"serve.tokens: {where} is not valid: expected {SHORTEST} or more ASCII characters without spaces")
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
