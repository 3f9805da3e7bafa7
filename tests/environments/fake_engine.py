"""As much of a container engine as the placement needs: HTTP on a unix socket, processes for containers.

The API is Docker's (version 1.47), so that the ``docker`` package talks to it as it does to a real one.
"""

from __future__ import annotations

import json
import re
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SERVER = "hud_orchestrator.environments.server"


@dataclass
class Container:
    """What was asked for, and the process that stands for it."""

    name: str
    asked: dict[str, Any]
    process: subprocess.Popen[str] | None = None
    port: str = ""
    removed: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)
    """One thing at a time happens to a container."""

    def told(self) -> dict[str, Any]:
        ended = self.process.poll() if self.process else None
        ports = {"8765/tcp": [{"HostIp": "127.0.0.1", "HostPort": self.port}] if self.port else None}
        return {
            "Id": self.name,
            "Name": f"/{self.name}",
            "Config": {"Labels": self.asked["Labels"], "Tty": True},
            "State": {"Status": "running" if ended is None else "exited", "ExitCode": ended},
            "NetworkSettings": {"Ports": ports if ended is None else {}},
        }

    def start(self, images: Path) -> bool:
        """Whether it was still there to be started."""
        source = images / f"{self.asked['Image'].partition(':')[0]}.py"
        command = [sys.executable, "-m", SERVER, str(source)]
        with self.turn:
            if self.removed:
                return False
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            assert self.process.stdout
            self.port = self.process.stdout.readline().strip().removeprefix("HUD_SERVE_PORT=")
            return True

    def remove(self) -> None:
        with self.turn:
            self.removed = True
            if self.process is not None:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait(10)
                assert self.process.stdout
                self.process.stdout.close()


@dataclass
class FakeEngine:
    """Containers by name. An image is a file of environments in a directory, once it was pulled."""

    images: Path
    pulled: set[str] = field(default_factory=set)
    pulls: list[str] = field(default_factory=list)
    """Every image that was asked for."""
    containers: dict[str, Container] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Every container that was ever asked for."""
    hold: threading.Event | None = None
    """While it is set and not given, containers are not created."""
    pull: threading.Event | None = None
    """The same, for images that are pulled."""
    tell: threading.Event | None = None
    """The same, for the list of containers."""
    lists: int = 0
    """How often somebody has asked for that."""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        found = re.fullmatch(r"(?:/v1\.\d+)?/(_ping|version|images|containers)/?(.*)", path)
        assert found, path
        kind, rest = found.groups()
        if kind in ("_ping", "version"):
            return 200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24"}
        return (
            self._image(method, rest, query)
            if kind == "images"
            else self._container(method, rest, query, body)
        )

    def _image(self, method: str, rest: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if method == "POST":
            name = query["fromImage"][0]
            self.pulls.append(name)
            if self.pull is not None:
                self.pull.wait(30)
            if not (self.images / f"{name}.py").exists():
                return 404, {"message": f"pull access denied for {name}"}
            self.pulled.add(name)
            return 200, {"status": "Downloaded"}
        name = rest.removesuffix("/json").partition(":")[0]
        return (200, {"Id": name}) if name in self.pulled else (404, {"message": f"No such image: {name}"})

    def _container(self, method: str, rest: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if rest == "create":
            self.asked.append(body)
            if self.hold is not None:
                self.hold.wait(30)
            name = query["name"][0]
            self.containers[name] = Container(name, body)
            return 201, {"Id": name, "Warnings": []}
        if rest == "json":
            self.lists += 1
            if self.tell is not None:
                self.tell.wait(30)
            wanted = json.loads(query["filters"][0])["label"][0].split("=", 1)
            every = [
                one
                for one in self.containers.values()
                if list(wanted) in list(map(list, one.asked["Labels"].items()))
            ]
            return 200, [one.told() for one in every]
        name, _, action = rest.partition("/")
        container = self.containers.get(name)
        if container is None:
            return 404, {"message": f"No such container: {name}"}
        if method == "DELETE":
            container.remove()
            self.containers.pop(name, None)
            return 204, None
        if action == "start":
            return (204, None) if container.start(self.images) else (404, {"message": "it was removed"})
        return (200, b"it said this\n") if action == "logs" else (200, container.told())


@contextmanager
def fake_engine(directory: Path, images: Path) -> Iterator[FakeEngine]:
    """An engine on ``directory/docker.sock``."""
    engine = FakeEngine(images)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = parse_qs(parts.query)
            status, told = engine.answer(self.command, parts.path, query, json.loads(body or b"null"))
            content = b"" if told is None else told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            with suppress(BrokenPipeError):  # whoever asked has lost patience
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(directory / "docker.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield engine
        finally:
            server.shutdown()
            for container in engine.containers.values():
                container.remove()
