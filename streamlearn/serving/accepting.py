"""Taking connections: all that wait, at each turn of the loop.

The loop's own way takes one a turn. While each turn computes an answer, the others then wait in the kernel, where nobody counts
them and nobody refuses them: at five times its capacity a server answered everything, ten seconds late.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import structlog

AT_ONCE = 64
FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
REST_S = 0.1  # while the machine has no room for another connection

log = structlog.get_logger()


class Acceptor:
    """Listens from its making on, in the running loop. The socket stays its owner's."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        greet_timeout_s: float,
        max_greeting: int,
    ) -> None:
        """With `tls` a client has `greet_timeout_s` for its greeting, and at most `max_greeting` are at it at once."""
        self._sock, self._make, self._tls = sock, make, tls
        self._greet_timeout_s, self._max_greeting = greet_timeout_s, max_greeting
        self._loop = asyncio.get_running_loop()
        self._greeting: set[asyncio.Task[None]] = set()
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Take no more."""
        self._closed = True
        self._loop.remove_reader(self._sock)

    async def wait_closed(self) -> None:
        """Return when those that were being taken are."""
        await asyncio.gather(*self._greeting)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                client, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in FULL:
                    self._rest(error)
                    return
                continue  # this one went away while it waited
            self._greet(client)

    def _greet(self, client: socket.socket) -> None:
        if self._tls is not None and len(self._greeting) >= self._max_greeting:
            client.close()  # nothing can be said to it before it is greeted
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(client))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _connect(self, client: socket.socket) -> None:
        timeout_s = self._greet_timeout_s if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(self._make, client, ssl=self._tls, ssl_handshake_timeout=timeout_s)
        except (OSError, TimeoutError):
            client.close()

    def _rest(self, error: OSError) -> None:
        log.error("server.full", error=str(error), next_step=f"taking no connection for {REST_S:g} s")
        self._loop.remove_reader(self._sock)
        self._loop.call_later(REST_S, self._listen)
