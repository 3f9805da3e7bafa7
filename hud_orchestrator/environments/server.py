"""Serve an environment over TCP, for the SDK, for ourselves, and for anybody who speaks the protocol.

Run as ``python -m hud_orchestrator.environments.server SOURCE``; ``hud-orchestrate env serve`` does the
same. A connection's first frame decides what it is: ``tunnel.open`` makes it a stream of bytes to a
capability, anything else begins a control session.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TextIO

from hud_orchestrator.environments.mcp_answers import NAME, answer_http, tools_binding
from hud_orchestrator.environments.rpc import (
    FAILED,
    FRAME_LIMIT,
    INVALID_PARAMS,
    FrameTooLarge,
    RpcError,
    error_frame,
    read_frame,
    result_frame,
)
from hud_orchestrator.environments.session import Session
from hud_orchestrator.environments.sessions import Sessions
from hud_orchestrator.environments.source import SourceMistake, environments
from hud_orchestrator.environments.template import Environment

ANNOUNCEMENT = "HUD_SERVE_PORT="
"""Begins the line on standard output that tells the port."""

TEARDOWN_S = 2
"""Seconds that templates get to put their things away when the server ends."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class EnvironmentServer:
    """Serves one environment on one port. Use as an async context manager."""

    def __init__(self, environment: Environment, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = host, port
        self._has_tools = bool(environment.tools)
        self._sessions = Sessions({environment.name: environment}, self._published)
        self._connections: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._tools_port = 0
        self.port = 0

    async def __aenter__(self) -> EnvironmentServer:
        try:
            await self._open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _open(self) -> None:
        if self._has_tools:
            # For whoever runs beside the environment; everybody else comes through a tunnel.
            self._tools_port = await self._listen(self._tools, "127.0.0.1", 0)
        self.port = await self._listen(self._control, *self._address)

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections), timeout=TEARDOWN_S)
        await self._sessions.close_all(within_s=TEARDOWN_S)

    async def _listen(self, serve: Serve, host: str, port: int) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.current_task()
            assert connection is not None
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)
            try:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(accept, host, port, limit=FRAME_LIMIT)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await read_frame(reader)
            if first is None:
                return
            if first.get("method") == "tunnel.open":
                await self._tunnel(first, reader, writer)
            else:
                await Session(self._sessions, writer).serve(reader, first)
        except FrameTooLarge as error:
            writer.write(error_frame(None, RpcError(FAILED, str(error))))
            await writer.drain()

    async def _tunnel(
        self, frame: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        params = frame.get("params")
        name = params.get("capability") if isinstance(params, dict) else None
        if name != NAME or not self._has_tools:
            known = f"there is: {NAME}" if self._has_tools else "there is none"
            refusal = RpcError(INVALID_PARAMS, f"tunnel.open: no capability {name!r}; {known}")
            writer.write(error_frame(frame.get("id"), refusal))
            return
        if frame.get("id") is not None:
            writer.write(result_frame(frame["id"], {"capability": name}))
        await answer_http(self._sessions, reader, writer)

    async def _tools(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_http(self._sessions, reader, writer)

    def _published(self, session: str) -> list[dict[str, Any]]:
        return [tools_binding(session, self._tools_port)] if self._has_tools else []


def chosen(source: Path, name: str | None) -> Environment:
    """The environment that *source* defines under that name; without a name, the only one.

    Raises:
        SourceMistake: it has none, or several to choose from.
    """
    known = environments(source)
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None or name not in known:
        raise SourceMistake(
            f"{source}: has no environment {name!r}; it has {sorted(known)}"
            if name
            else f"{source}: defines several environments, {sorted(known)}; choose one with --env"
        )
    return known[name]


def serve_file(source: Path, name: str | None, *, host: str, port: int) -> None:
    """Serve the environment of a file until SIGTERM or SIGINT, and tell the port on standard output.

    Raises:
        SourceMistake: there is no such environment.
        OSError: the port cannot be had.
    """
    # What the file prints, already when it is imported, is for people.
    announced, sys.stdout = sys.stdout, sys.stderr
    environment = chosen(source, name)
    asyncio.run(_serve_until_told(EnvironmentServer(environment, host=host, port=port), announced))


async def _serve_until_told(server: EnvironmentServer, announced: TextIO) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with server:
        print(f"{ANNOUNCEMENT}{server.port}", file=announced, flush=True)
        await told.wait()


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a .py file that defines an environment")
    parser.add_argument("--env", help="its name, when the file defines several")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    try:
        serve_file(given.source, given.env, host=given.host, port=given.port)
    except (SourceMistake, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
