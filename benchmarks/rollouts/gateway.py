"""A paced gateway: every completion takes the same time, and costs this process next to nothing.

Run as ``python -m benchmarks.rollouts.gateway LATENCY_S``; the first line of its output is its port.
While a conversation with tools has fewer assistant turns than ``TOOL_TURNS``, the answer is a tool call.
It also lists the one model, for the SDK asks the catalog before it samples.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import cast

import uvloop

MODEL = "bench"
TOOL_TURNS = 7
"""Calls of a tool before the last turn: eight turns in all."""

PROMPT = list(range(100, 140))
OUTPUT = list(range(200, 208))
CATALOG = {
    "items": [
        {
            "id": MODEL,
            "name": MODEL,
            "model_name": MODEL,
            "sdk_agent_type": "openai_compatible",
            "is_trainable": True,
            "provider": {"name": "bench"},
        }
    ],
    "total": 1,
}


def reply(request: dict[str, object]) -> dict[str, object]:
    """One completion with token ids and logprobs, as HUD's gateway has them."""
    messages = request["messages"]
    assert isinstance(messages, list)
    turns = sum(message["role"] == "assistant" for message in messages)
    message: dict[str, object] = {"role": "assistant", "content": "46"}
    if request.get("tools") and turns < TOOL_TURNS:
        function = {"name": "say", "arguments": '{"word": "a"}'}
        message["content"] = None
        message["tool_calls"] = [{"id": f"call_{turns}", "type": "function", "function": function}]
    given = request.get("prompt_token_ids")
    prompt = [*given, *PROMPT[:12]] if isinstance(given, list) else PROMPT
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
                "logprobs": {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}] * len(OUTPUT)},
                "prompt_token_ids": prompt,
                "token_ids": OUTPUT,
            }
        ],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(OUTPUT), "total_tokens": 60},
    }


class Paced(asyncio.Protocol):
    """One connection: requests are read by their length and answered after the latency."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if b"/chat/completions" in head.partition(b"\r\n")[0]:
                asyncio.get_running_loop().call_later(self._latency_s, self._answer, reply(json.loads(body)))
            else:
                self._answer(CATALOG)

    def _answer(self, body: dict[str, object]) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return  # the measurement is over
        text = json.dumps(body).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
        self._transport.write(head + text)


async def _serve(latency_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Paced(latency_s), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(float(sys.argv[1])))
