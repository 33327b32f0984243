"""Ports of this machine."""

import contextlib
import socket


def free_ports(n: int) -> list[int]:
    """So many that nobody listens at now, no two the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
