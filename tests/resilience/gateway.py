"""A gateway over real HTTP that answers at the pace, and with the troubles, that a test gives it."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from aiohttp import web
from pydantic import SecretStr

from hud_orchestrator.clients.gateway import ChatRequest, Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.pacing import PacedGateway


@dataclass
class Trouble:
    """What every request meets with instead of an answer."""

    status: int
    retry_after: str | None = None


@dataclass
class FakeGateway:
    """Works on *servers* requests at once, each for *service_s* seconds; refuses more than *room*."""

    servers: int = 10**6
    service_s: float = 0.0
    room: int = 10**6
    trouble: Trouble | None = None
    url: str = ""
    in_flight: int = 0
    most: int = 0
    """Requests that were there at once."""
    answered: int = 0
    refused: list[float] = field(default_factory=list)
    """When requests were refused, on the loop's clock."""
    noticed: anyio.Event = field(default_factory=anyio.Event)
    """Set once a request was refused."""
    asked: list[str] = field(default_factory=list)
    """The first message of every request that was answered, in order."""

    async def answer(self, request: web.Request) -> web.Response:
        """One completion, or a refusal."""
        body = await request.json()
        trouble = self.trouble or (Trouble(429, "0.2") if self.in_flight >= self.room else None)
        if trouble is not None:
            self.refused.append(anyio.current_time())
            self.noticed.set()
            headers = {} if trouble.retry_after is None else {"Retry-After": trouble.retry_after}
            return web.json_response({"detail": "no room"}, status=trouble.status, headers=headers)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            async with self._worker:
                await anyio.sleep(self.service_s)
        finally:
            self.in_flight -= 1
        self.answered += 1
        self.asked.append(body["messages"][0]["content"])
        return web.json_response(completion(body["messages"][0]["content"]))

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncGenerator[None, None]:
        """Listen for the length of the block."""
        self._worker = anyio.CapacityLimiter(self.servers)
        app = web.Application()
        app.router.add_post("/chat/completions", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()


def completion(text: str) -> dict[str, object]:
    """An answer with its tokens."""
    choice = {
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": {"content": [{"logprob": -0.5}]},
        "prompt_token_ids": [1],
        "token_ids": [2],
    }
    return {"choices": [choice]}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def paced(url: str, *, most: int, patience_s: float = 60) -> AsyncGenerator[PacedGateway, None]:
    """The gateway at *url*, as an attempter has it."""
    async with Transport(url, SecretStr("a-key"), connections=most + 10) as transport:
        yield PacedGateway(Gateway(transport, model="m"), most=most, patience_s=patience_s)


def question(text: str = "hello") -> ChatRequest:
    """A request for a turn."""
    message = {"role": "user", "content": text}
    return ChatRequest(model="m", messages=[message], max_tokens=1, temperature=1, top_p=1)
