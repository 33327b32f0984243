"""A real broker with TLS, SASL and mutual TLS, on keys made for the run; and what its clients need to be let in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from benchmarks.testbed.kafka_broker import load_broker
from benchmarks.testbed.ports import free_ports

USER = "learner"
PASSWORD = "planted-secret-4711"  # noqa: S105  what is searched for afterwards
KEY_PASSWORD = "planted-key-secret-4712"  # noqa: S105


@dataclass(frozen=True)
class Secured:
    """Addresses of a broker by what a client must prove there, and the files with which it does."""

    folder: Path
    plaintext: str
    sasl: str  # TLS, and a password by PLAIN or SCRAM
    mutual: str  # TLS, and a certificate of the client

    def client(self, kind: str, **changes: Any) -> dict[str, Any]:
        """Settings that are let in: `plain`, `scram` or `mutual`."""
        names = {"ssl_cafile": str(self.folder / "ca.pem")}
        if kind == "mutual":
            pair = {"ssl_certfile": str(self.folder / "client.pem"), "ssl_keyfile": str(self.folder / "client.key")}
            return {"security_protocol": "SSL", **names, **pair, **changes}
        mechanism = {"plain": "PLAIN", "scram": "SCRAM-SHA-512"}[kind]
        word = {"sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
        return {"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism, **names, **word, **changes}

    def address(self, kind: str) -> str:
        """Where those are let in."""
        return self.mutual if kind == "mutual" else self.sasl


def started(folder: Path) -> Secured:
    """A broker in `folder`, on loopback. Its certificate names 127.0.0.1 alone, so that `localhost` is another host."""
    broker = load_broker()
    make_keys(folder)
    ports = free_ports(2)
    listeners = [broker.Listener("SASL", "SASL_SSL", ports[0]), broker.Listener("MUTUAL", "SSL", ports[1])]
    node = broker.up(folder / "broker", listeners=listeners, properties=properties(folder), users={USER: PASSWORD})
    return Secured(folder, node.bootstrap, *(f"127.0.0.1:{port}" for port in ports))


def stopped(folder: Path) -> None:
    """The broker of `folder` has ended."""
    load_broker().down(folder / "broker")


def properties(folder: Path) -> Mapping[str, str]:
    """What the broker is told of keys and mechanisms."""
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
        "connection.failed.authentication.delay.ms": "10",
    }


def make_keys(folder: Path) -> None:
    """A certificate authority, one nobody trusts, the server's pair, and the client's with an encrypted key."""
    ours, strangers = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    strangers.cert_pem.write_to_path(folder / "strangers.pem")
    server, client = ours.issue_cert("127.0.0.1"), ours.issue_cert("learner@example.org")
    (folder / "server.pem").write_bytes(_key(server) + b"".join(pem.bytes() for pem in server.cert_chain_pems))
    (folder / "client.pem").write_bytes(b"".join(pem.bytes() for pem in client.cert_chain_pems))
    (folder / "client.key").write_bytes(_key(client))
    (folder / "locked.key").write_bytes(_key(client, KEY_PASSWORD))


def _key(pair: trustme.LeafCert, password: str | None = None) -> bytes:
    """In the form that Java reads, which is not trustme's."""
    key = load_pem_private_key(pair.private_key_pem.bytes(), None)
    how = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
