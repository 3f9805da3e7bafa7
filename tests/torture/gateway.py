"""A gateway that answers at once, or as badly as the conversation asks it to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

PACE_S = 0.01


@asynccontextmanager
async def paced_gateway() -> AsyncGenerator[str, None]:
    """Its URL. A message whose text is ``gateway hangs`` or ``gateway refuses`` it obeys."""
    numbers = itertools.count()

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        said = str([message.get("content") for message in body["messages"]])
        if "gateway refuses" in said:
            return web.json_response({"detail": "no"}, status=400)
        await asyncio.sleep(10**6 if "gateway hangs" in said else PACE_S)
        return web.json_response(_completion(body, next(numbers)))

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/chat/completions", chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def _completion(body: dict[str, Any], number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "something"}
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        called = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"call-{number}", "type": "function", "function": called}],
        }
    return {
        "choices": [
            {
                "message": message,
                "finish_reason": "stop",
                "prompt_token_ids": [1, 2],
                "token_ids": [3],
                "logprobs": {"content": [{"logprob": -0.5}]},
            }
        ]
    }
