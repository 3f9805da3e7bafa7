"""A server of HUD's control protocol whose every answer is written down, for what a real one never does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteStream

HELLO = {"session_id": "sess-1", "env": {"name": "e", "version": "0"}, "bindings": []}
PLAIN: dict[str, Any] = {
    "hello": HELLO,
    "tasks.start": {"prompt": "say"},
    "tasks.grade": {"score": 0.5},
    "tasks.cancel": {"cancelled": True},
}


class Connection:
    """What a script sees of one connection."""

    def __init__(self, stream: anyio.abc.ByteStream, heard: list[dict[str, Any]]) -> None:
        self.stream = BufferedByteStream(stream)
        self.answers = PLAIN
        self._heard = heard

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self.stream.receive_until(b"\n", 2**25))
        self._heard.append(frame)
        return frame

    async def receive_at_most(self, count: int) -> None:
        await self.stream.receive(count)

    async def send(self, line: bytes) -> None:
        await self.stream.send(line)

    async def answer(self, frame: dict[str, Any]) -> None:
        await self.send(result(frame, self.answers[frame["method"]]))


def result(frame: dict[str, Any], value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": value}).encode() + b"\n"


def error(number: int | None, code: int, message: str) -> bytes:
    told = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
    return json.dumps(told).encode() + b"\n"


Script = Callable[[Connection], Awaitable[None]]


async def obliging(connection: Connection) -> None:
    """Answer everything."""
    while True:
        await connection.answer(await connection.frame())


@asynccontextmanager
async def served(*scripts: Script) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A port, and every frame that was heard there; the last script serves all further connections."""
    heard: list[dict[str, Any]] = []
    left = list(scripts)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        script = left.pop(0) if len(left) > 1 else left[0]
        async with stream:
            with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                await script(Connection(stream, heard))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            yield port, heard
            group.cancel_scope.cancel()
