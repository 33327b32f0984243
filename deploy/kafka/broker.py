"""One real Apache Kafka node (KRaft) on loopback, for development and tests: `broker.py up | down | status`.

Maven fetches the jars of pom.xml once, into libs/. All that the broker writes lies in its data folder: its log, its settings,
`broker.json` with process id and ports. Starting again on the same data folder takes the same ports, so that clients find it.
Tests also ask `up` for further listeners (TLS, SASL, an address that clients are told wrongly) and for a second broker.
"""

import argparse
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
STAMP = ".pom"  # in there, of what the jars are
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData")
PROPERTIES = """\
process.roles={roles}
node.id={node_id}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}/log
num.partitions=1
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=2097152
log.retention.ms=-1
log.message.timestamp.after.max.ms=9223372036854775807
num.network.threads=2
num.io.threads=4
background.threads=2
{more}
"""


class BrokerError(Exception):
    """The broker could not be started; the message says what is missing or where its log is."""


class Listener(NamedTuple):
    """A further address of the broker."""

    name: str
    protocol: str  # PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
    port: int
    told: int = 0  # the port that clients are told, where it is another


class Node(NamedTuple):
    """A broker that was started on a data folder."""

    pid: int
    port: int
    controller_port: int
    node_id: int = 1

    @property
    def bootstrap(self) -> str:
        """What clients call bootstrap servers."""
        return f"127.0.0.1:{self.port}"


def up(
    data: Path,
    *,
    port: int = 0,
    heap: str = "384m",
    wait_s: float = 90.0,
    listeners: Sequence[Listener] = (),
    properties: Mapping[str, str] | None = None,
    users: Mapping[str, str] | None = None,
    joins: Path | None = None,
) -> Node:
    """A broker that answers, on `data`; the running one when there is one. Port 0: the last used, or a free one.

    `properties` are added to the broker's settings; `users` are SCRAM-SHA-512 names and passwords, made on first use of `data`;
    with `joins`, the data folder of a running node, it becomes the second broker of that node's cluster.
    Errors  BrokerError without Java or Maven, or when it does not answer within `wait_s`.
    """
    data = data.resolve()
    running = status(data)
    if running:
        return running
    java = _tool("java")
    classpath = f"{fetch_jars()}/*"
    data.mkdir(parents=True, exist_ok=True)
    node = _planned(data, port, joins)
    (data / "server.properties").write_text(_settings(node, data, listeners, properties or {}))
    _format(java, classpath, data, joins=joins, users=users or {})
    node = node._replace(pid=_start(java, classpath, data, heap))
    (data / "broker.json").write_text(json.dumps(node._asdict()))
    _wait(node, data, wait_s)
    return node


def down(data: Path, *, wait_s: float = 30.0) -> bool:
    """Stop the broker of `data`, by SIGKILL when it does not end in time. False when none ran."""
    data = data.resolve()
    node = status(data)
    if node is None:
        return False
    os.kill(node.pid, signal.SIGTERM)
    return _ended(node.pid, data, wait_s) or kill(data)


def kill(data: Path) -> bool:
    """End the broker of `data` by SIGKILL, as a crash would. False when none ran."""
    data = data.resolve()
    node = status(data)
    if node is None:
        return False
    os.kill(node.pid, signal.SIGKILL)
    return _ended(node.pid, data, 30.0)


def status(data: Path) -> Node | None:
    """The broker that runs on `data`, if any."""
    node = _read(data.resolve())
    return node if node and _alive(node.pid, data.resolve()) else None


def fetch_jars() -> Path:
    """The folder of jars for the pinned versions, fetched when absent. Errors: BrokerError without Maven.

    One process at a time fetches them: a broker may run from the folder that another one would put in its place.
    """
    pom = (HERE / "pom.xml").read_text()
    if not _are_of(pom):
        with LIBS.with_name("libs.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _are_of(pom):
                _fetch(pom)
    return LIBS


def _are_of(pom: str) -> bool:
    return (LIBS / STAMP).exists() and (LIBS / STAMP).read_text() == pom


def _fetch(pom: str) -> None:
    beside = LIBS.with_name(f"libs.{os.getpid()}")
    command = [
        _tool("mvn"),
        "-B",
        "-q",
        "-f",
        str(HERE / "pom.xml"),
        COPY,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={beside}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokerError(f"Maven could not fetch the broker's jars: {done.stdout.strip()[-500:]}")
    (beside / STAMP).write_text(pom)
    shutil.rmtree(LIBS, ignore_errors=True)
    beside.rename(LIBS)


def answers(port: int, timeout_s: float = 1.0) -> bool:
    """Whether a broker at `port` answers an ApiVersions request (key 18, version 0) without error."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == 10 and head[4:] == struct.pack(">ih", 1, 0)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BrokerError(f"'{name}' is not on the path: the development broker needs Java 17 or newer, and Maven once")
    return found


def _read(data: Path) -> Node | None:
    try:
        return Node(**json.loads((data / "broker.json").read_text()))
    except FileNotFoundError:
        return None


def _planned(data: Path, port: int, joins: Path | None) -> Node:
    """Which node it will be, at the ports that it had before, if any."""
    known, first = _read(data), _read(joins.resolve()) if joins else None
    port = port or (known.port if known else free_port())
    controller = first.controller_port if first else known.controller_port if known else free_port()
    return Node(0, port, controller, 2 if first else 1)


def _settings(node: Node, data: Path, listeners: Sequence[Listener], properties: Mapping[str, str]) -> str:
    """The text of `server.properties`; of a key that stands there twice the last one counts."""
    open_to = [Listener("PLAINTEXT", "PLAINTEXT", node.port), *listeners]
    control = Listener("CONTROLLER", "PLAINTEXT", node.controller_port)
    listens = open_to if node.node_id > 1 else [*open_to, control]
    return PROPERTIES.format(
        roles="broker,controller" if node.node_id == 1 else "broker",
        node_id=node.node_id,
        listeners=",".join(f"{each.name}://127.0.0.1:{each.port}" for each in listens),
        advertised=",".join(f"{each.name}://127.0.0.1:{each.told or each.port}" for each in open_to),
        protocols=",".join(f"{each.name}:{each.protocol}" for each in [*open_to, control]),
        controller_port=node.controller_port,
        data=data,
        more="\n".join(f"{name}={value}" for name, value in properties.items()),
    )


def _format(java: str, classpath: str, data: Path, *, joins: Path | None, users: Mapping[str, str]) -> None:
    if (data / "log" / "meta.properties").exists():
        return
    tool = [java, *QUICK, "-cp", classpath, "kafka.tools.StorageTool"]
    new_id = _cluster_of(joins) if joins else _said([*tool, "random-uuid"]).split()[-1]
    scram = [f"--add-scram=SCRAM-SHA-512=[name={name},password={word}]" for name, word in users.items()]
    config = ["-c", str(data / "server.properties"), *scram, *(() if joins else ("--standalone",))]
    done = subprocess.run([*tool, "format", "-t", new_id, *config], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokerError(f"the data folder {data} could not be formatted: {(done.stderr or done.stdout).strip()[-500:]}")


def _cluster_of(data: Path) -> str:
    lines = (data / "log" / "meta.properties").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _start(java: str, classpath: str, data: Path, heap: str) -> int:
    logging = [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", f"-Dbroker.log={data / 'broker.log'}"]
    command = [
        java,
        f"-Xmx{heap}",
        "-Xms64m",
        *QUICK,
        *logging,
        "-cp",
        classpath,
        "kafka.Kafka",
        str(data / "server.properties"),
    ]
    detach = f'"$@" >{shlex.quote(str(data / "broker.out"))} 2>&1 </dev/null & echo $!'
    started = subprocess.run(
        ["sh", "-c", detach, "sh", *command], capture_output=True, text=True, check=True, start_new_session=True
    )
    return int(started.stdout)


def _wait(node: Node, data: Path, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not answers(node.port):
        if not _alive(node.pid, data):
            raise BrokerError(f"the broker ended while starting: see {data / 'broker.out'} and {data / 'broker.log'}")
        if time.monotonic() > until:
            raise BrokerError(f"the broker did not answer within {wait_s:g} s: see {data / 'broker.log'}")
        time.sleep(0.05)


def _alive(pid: int, data: Path) -> bool:
    """True for our Java process only: a number may have been given to another process since."""
    found = subprocess.run(
        ["ps", "-ww", "-p", str(pid), "-o", "stat=,args="], capture_output=True, text=True, check=False
    ).stdout
    return str(data / "server.properties") in found and not found.lstrip().startswith("Z")


def _ended(pid: int, data: Path, wait_s: float) -> bool:
    until = time.monotonic() + wait_s
    while _alive(pid, data):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def main() -> int:
    """Command line: prints the bootstrap address of a running broker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--port", type=int, default=0, help="0: the last used, or a free one")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="what the broker stores (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "down":
        print("stopped" if down(arguments.data) else "not running")
        return 0
    try:
        node = up(arguments.data, port=arguments.port) if arguments.command == "up" else status(arguments.data)
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    print(node.bootstrap if node else "not running")
    return 0 if node else 1


if __name__ == "__main__":
    sys.exit(main())
