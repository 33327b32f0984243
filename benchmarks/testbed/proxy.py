"""A TCP proxy on loopback that delays, drips, cuts and refuses, so that a real server looks like one behind a bad network."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What is done to the answers of the server; the questions pass."""

    delay_s: float = 0.0  # before each piece
    piece_bytes: int = 1 << 16  # at most so much at once
    cut_after: tuple[int, int] | None = None  # end each connection after so many bytes, drawn between these
    refuses: bool = False  # new connections end at once


@dataclass
class Proxy:
    """Passes `port` on to `server` until it is closed; `fault` may be changed meanwhile."""

    port: int
    server: int
    fault: Fault = field(default_factory=Fault)
    cuts: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(5))
    mend: Callable[[bytes], bytes] = bytes  # what a piece of an answer should have been

    def __post_init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections and listen no more."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """End all connections now."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(pair)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.fault.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server))
            except OSError:
                client.close()
                continue
            pair = (client, server)
            self._pairs.append(pair)
            threading.Thread(target=self._questions, args=pair, daemon=True).start()
            threading.Thread(target=self._answers, args=pair, daemon=True).start()

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                server.sendall(piece)
        _end((client, server))

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        left = self.draw.randint(*self.fault.cut_after) if self.fault.cut_after else None
        with contextlib.suppress(OSError):
            while piece := server.recv(self.fault.piece_bytes):
                time.sleep(self.fault.delay_s)
                piece = self.mend(piece)
                client.sendall(piece if left is None else piece[:left])
                if left is not None and (left := left - len(piece)) <= 0:
                    self.cuts += 1
                    break
        _end((client, server))


def _end(pair: tuple[socket.socket, socket.socket]) -> None:
    for each in pair:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
