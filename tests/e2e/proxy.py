"""A TCP proxy in front of a real service that loses what a test tells it to lose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

Loss = Literal["request", "answer", "time", "silence", "conflict", "unknown"]
"""What a request costs: it never arrives; its answer never arrives; or one of them waits until the proxy
closes: the request (``time``), or the answer (``silence``), which comes late when it is let go before.
A ``conflict`` is an answer of 409 instead, also to the four requests after it;
``unknown`` is one of 404."""


NO_SUCH_PATH = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


CONFLICT = b'HTTP/1.1 409 Conflict\r\nContent-Length: 24\r\nConnection: close\r\n\r\n{"detail": "not finite"}'

REFUSALS = {"conflict": CONFLICT, "unknown": NO_SUCH_PATH}


class LossyProxy:
    """Forwards connections; the n-th request whose path ends in *suffix* meets with *loss*.

    Without *leases* the service behind it is one that does not have them, as HUD's.
    """

    def __init__(self, upstream: str, *, suffix: str, nth: int, loss: Loss, leases: bool = True) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._suffix = suffix.encode()
        self._nth = nth
        self._loss = loss
        self._leases = leases
        self.seen = 0
        """Requests for that path, the lost one included."""
        self.holding = threading.Event()
        """Set once a request, or its answer, is held."""
        self._waiting = threading.Event()
        self._closing = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):  # the listening socket is closed at the end
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def let_go(self) -> None:
        """Let an answer through that is held."""
        self._waiting.set()

    def close(self) -> None:
        self._closing = True
        self._waiting.set()
        # shutdown() wakes the accepting thread; close() alone would not.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as upstream, suppress(OSError):
            lost = threading.Event()
            back = threading.Thread(target=self._answer, args=(upstream, client, lost), daemon=True)
            back.start()
            # A client waits for its answer before it sends more, so a request begins what is received.
            while data := client.recv(65536):
                # A request line ends before the headers.
                line = data.split(b"\r\n", 1)[0]
                if not self._leases and b"/lease " in line:
                    client.sendall(NO_SUCH_PATH)
                    return
                if self._suffix in line and self._is_the_one():
                    if self._loss == "request":
                        return
                    if self._loss == "time":
                        self._hold()
                        return
                    if self._loss in REFUSALS:
                        client.sendall(REFUSALS[self._loss])
                        return
                    lost.set()
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)
            back.join()

    def _answer(self, upstream: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                if lost.is_set():
                    if self._loss == "silence":
                        self._hold()
                    if self._closing or self._loss == "answer":
                        client.shutdown(socket.SHUT_RDWR)
                        return
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _hold(self) -> None:
        self.holding.set()
        self._waiting.wait()

    def _is_the_one(self) -> bool:
        self.seen += 1
        last = self._nth + 4 if self._loss == "conflict" else self._nth
        return self._nth <= self.seen <= last


@contextmanager
def lossy(
    upstream: str, *, suffix: str = "/nothing", nth: int = 1, loss: Loss = "request", leases: bool = True
) -> Iterator[LossyProxy]:
    """A proxy for the length of the block."""
    proxy = LossyProxy(upstream, suffix=suffix, nth=nth, loss=loss, leases=leases)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(5)
