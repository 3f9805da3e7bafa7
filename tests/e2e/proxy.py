"""A TCP proxy in front of a real service that loses what a test tells it to lose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

Loss = Literal["request", "answer", "time"]
"""What a request costs: it never arrives, its answer never arrives, or both wait until the proxy closes."""


NO_SUCH_PATH = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


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
        """Set once a request is held."""
        self._closing = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):  # the listening socket is closed at the end
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        # shutdown() wakes the accepting thread; close() alone would not.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as upstream, suppress(OSError):
            request = client.recv(65536)
            # A request line ends before the headers; training calls come on connections of their own.
            if not self._leases and b"/lease " in request.split(b"\r\n", 1)[0]:
                client.sendall(NO_SUCH_PATH)
                return
            lost = self._suffix in request.split(b"\r\n", 1)[0] and self._is_the_one()
            if lost and self._loss == "request":
                return
            if lost and self._loss == "time":
                self.holding.set()
                self._closing.wait()
                return
            upstream.sendall(request)
            back = threading.Thread(target=_pump, args=(upstream, client, lost), daemon=True)
            back.start()
            _pump(client, upstream, False)
            back.join()

    def _is_the_one(self) -> bool:
        self.seen += 1
        return self.seen == self._nth


def _pump(source: socket.socket, sink: socket.socket, swallow: bool) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if swallow:
                sink.shutdown(socket.SHUT_RDWR)
                return
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


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
