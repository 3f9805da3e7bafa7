"""A gateway in front of a real one that refuses everything for as long as a test says."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Outage:
    """``away`` is set: everything is refused with 503. ``refused`` counts."""

    def __init__(self, upstream: str) -> None:
        self.away = threading.Event()
        self.refused = 0
        self.first_refused = threading.Event()
        outage, parts = self, urlsplit(upstream)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outage.away.is_set():
                    outage.refused += 1
                    outage.first_refused.set()
                    self._say(503, b'{"detail": "down for maintenance"}', {"Retry-After": "0.2"})
                    return
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
                headers = {name: self.headers[name] for name in ("Authorization", "Trace-Id", "Content-Type")}
                connection.request("POST", parts.path + self.path, body, headers)
                answer = connection.getresponse()
                self._say(answer.status, answer.read(), {})
                connection.close()

            def _say(self, status: int, content: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                sent = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Listen for the length of the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)
