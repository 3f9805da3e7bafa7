"""An environment process: serves episodes over one inherited socket. Standard library only.

Run as ``python -m hud_orchestrator.environments.host SOURCE FD``. The bytes are HUD's control
protocol: newline-delimited JSON-RPC 2.0 with ``hello``, ``tasks.list``, ``tasks.start``,
``tasks.grade``, ``tasks.cancel`` and ``bye``. ``tasks.turn`` is ours, for templates that ask for more
than one answer, and so is ``tools.call``, which spares a tool a server of its own. Task calls
run one after the other; ``tasks.cancel`` interrupts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hud_orchestrator.environments.frames import NotAFrame
from hud_orchestrator.environments.runner import Runner, TaskMistake
from hud_orchestrator.environments.source import SourceMistake, environments
from hud_orchestrator.environments.template import Environment

FRAME_LIMIT = 16 * 2**20
"""Bytes of the longest frame, as the SDK's servers have it."""

TASK_CALLS = frozenset({"tasks.start", "tasks.turn", "tasks.grade", "tools.call"})
"""Calls that run a template's or a tool's code."""

PR_SET_PDEATHSIG = 1

INVALID_PARAMS = -32602
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
FAILED = -32000


class RpcError(Exception):
    """An error frame to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Host:
    """Answers the requests of one connection, one task call at a time."""

    def __init__(self, known: dict[str, Environment], writer: asyncio.StreamWriter) -> None:
        self._known = known
        self._writer = writer
        self._runner: Runner | None = None
        self._call: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer until the other side closes or says ``bye``."""
        while line := await reader.readline():
            frame = json.loads(line)
            method, params, number = frame.get("method"), frame.get("params") or {}, frame.get("id")
            if method in TASK_CALLS:
                self._call = asyncio.create_task(self._in_turn(self._call, number, method, params))
                continue
            if method in ("tasks.cancel", "bye"):
                await self._interrupt()
            await self._answer(number, self._plain_call(method))
            if method == "bye":
                return

    async def _in_turn(
        self, before: asyncio.Task[None] | None, number: int | None, method: str, params: dict[str, Any]
    ) -> None:
        """Answer a task call when the one before is done: a grade may be asked for while a turn runs."""
        if before is not None:
            await asyncio.wait({before})
        await self._answer(number, self._task_call(method, params))

    async def _answer(self, number: int | None, work: Awaitable[dict[str, Any]]) -> None:
        try:
            self._send(number, result=await work)
        except RpcError as error:
            self._send(number, error=error)
        except asyncio.CancelledError:
            self._send(number, error=RpcError(FAILED, "the task was interrupted"))
            raise
        except (TaskMistake, NotAFrame) as error:
            self._send(number, error=RpcError(INVALID_PARAMS, str(error)))
        except Exception as error:
            self._send(number, error=RpcError(FAILED, f"{type(error).__name__}: {error}"))

    async def _task_call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tasks.start":
            if self._runner is not None:
                await self._runner.close()
            self._runner = Runner(self._environment(params.get("env")))
            return await self._runner.start(params["id"], params.get("args") or {})
        if self._runner is None:
            raise RpcError(INVALID_REQUEST, "no task in progress")
        if method == "tools.call":
            return await self._runner.call_tool(params["name"], params.get("arguments") or {})
        step: Callable[[Any], Awaitable[dict[str, Any]]]
        step = self._runner.turn if method == "tasks.turn" else self._runner.grade
        return await step(params.get("answer"))

    async def _plain_call(self, method: str | None) -> dict[str, Any]:
        if method == "hello":
            first = next(iter(self._known.values()))
            named = {"name": first.name, "version": first.version}
            return {"session_id": f"sess-{uuid.uuid4().hex[:8]}", "env": named, "bindings": []}
        if method == "tasks.list":
            every = [t for environment in self._known.values() for t in environment.templates.values()]
            return {"tasks": [{"id": t.id, "description": t.description} for t in every]}
        if method == "tasks.cancel":
            return {"cancelled": True}
        if method == "bye":
            return {"goodbye": True}
        raise RpcError(UNKNOWN_METHOD, f"method not found: {method}")

    async def _interrupt(self) -> None:
        if self._call is not None:
            self._call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._call
            self._call = None
        if self._runner is not None:
            with contextlib.suppress(Exception):
                await self._runner.close()
            self._runner = None

    def _environment(self, name: str | None) -> Environment:
        if name is None and len(self._known) == 1:
            return next(iter(self._known.values()))
        if name not in self._known:
            raise RpcError(
                INVALID_PARAMS, f"there is no environment {name!r}; the source defines {sorted(self._known)}"
            )
        return self._known[name]

    def _send(self, number: int | None, *, result: Any = None, error: RpcError | None = None) -> None:
        if number is None:
            return
        frame: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
        frame |= (
            {"result": result} if error is None else {"error": {"code": error.code, "message": str(error)}}
        )
        try:
            text = json.dumps(frame, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as mistake:
            failed = {"code": FAILED, "message": f"the environment's frame is not JSON: {mistake}"}
            text = json.dumps({"jsonrpc": "2.0", "id": number, "error": failed})
        self._writer.write(text.encode() + b"\n")


async def _serve(known: dict[str, Environment], connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection, limit=FRAME_LIMIT)
    with contextlib.suppress(ConnectionError):
        await Host(known, writer).serve(reader)


def main() -> None:
    """Import the source and serve until the daemon goes away."""
    source, fd = Path(sys.argv[1]), int(sys.argv[2])
    # A template stuck in a loop never reads that the daemon is gone; the kernel tells it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    try:
        known = environments(source)
    except SourceMistake as error:
        frame = {"jsonrpc": "2.0", "id": 1, "error": {"code": FAILED, "message": str(error)}}
        connection.sendall(json.dumps(frame).encode() + b"\n")
        sys.exit(1)
    # What a template prints is for people; the protocol has a socket of its own.
    sys.stdout = sys.stderr
    asyncio.run(_serve(known, connection))


if __name__ == "__main__":
    main()
