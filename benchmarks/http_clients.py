"""A chat completion over httpx with its own pool, and with aiohttp's, which the daemon samples through."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import anyio
import httpx
import uvloop
from aiohttp import ClientSession, TCPConnector
from httpx_aiohttp import AiohttpTransport

from benchmarks.measure import Row, cpu_ms

AT_ONCE = 64
TIMES = 1500
LATENCY_S = 0.05
TOKENS = [{"token": "a", "logprob": -0.5, "top_logprobs": []}] * 8
REPLY = json.dumps({"choices": [{"message": {"content": "46"}, "logprobs": {"content": TOKENS}}]}).encode()
BODY = {"model": "m", "messages": [{"role": "user", "content": "12+34="}], "max_tokens": 8, "logprobs": True}


def http_clients() -> list[Row]:
    """Measure both against one paced server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/chat/completions"
    try:
        return [
            Row(what=f"request by httpx, {name}, {AT_ONCE} at once", cpu_ms=_measured(name, url))
            for name in ("aiohttp's pool", "its own pool")
        ]
    finally:
        server.kill()
        server.join()


def _measured(name: str, url: str) -> float:
    async def run() -> float:
        async with httpx.AsyncClient(transport=_transport(name), trust_env=False) as client:

            async def work() -> Any:
                return (await client.post(url, json=BODY)).json()

            return await cpu_ms(work, times=TIMES, at_once=AT_ONCE)

    return anyio.run(run, backend_options={"use_uvloop": True})


def _transport(name: str) -> httpx.AsyncBaseTransport:
    if name == "its own pool":
        return httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        )
    return AiohttpTransport(client=lambda: ClientSession(connector=TCPConnector(limit=AT_ONCE)))


def _serve(ready: Connection) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(request.split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(LATENCY_S)
                writer.write(head + REPLY)

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())
