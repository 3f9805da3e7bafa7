"""A service that takes reports, or does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest


@dataclass
class Desk:
    """Every request that came, and what the next ones are answered; the last answer is given for ever."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    """Statuses; 0 is no answer at all."""
    came: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def taken(self, ending: str) -> list[dict[str, Any]]:
        """Bodies of the requests whose path ends so."""
        return [body for path, body in self.came if path.endswith(ending)]

    def next_answer(self) -> int:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    found = Desk()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.startswith("Content-Length")
                )
                body = json.loads(await reader.readexactly(length))
                found.came.append((head.split()[1], body))
                status = found.next_answer()
                if status == 0:
                    await reader.read()
                    break
                writer.write(f"HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        with anyio.move_on_after(5):
            await server.wait_closed()


@pytest.fixture
def nobody_there(unused_tcp_port: int) -> str:
    """An address at which nobody listens."""
    return f"http://127.0.0.1:{unused_tcp_port}"
