"""A chat completion over httpx, and over the pool that the daemon samples through."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import anyio
import httpx
import uvloop

from benchmarks.measure import Row, cpu_ms
from hud_orchestrator.clients.pool import Pool

AT_ONCE = 64
TIMES = 1500
LATENCY_S = 0.05
PATH = "/chat/completions"
TOKENS = [{"token": "a", "logprob": -0.5, "top_logprobs": []}] * 8
REPLY = json.dumps({"choices": [{"message": {"content": "46"}, "logprobs": {"content": TOKENS}}]}).encode()
BODY = {"model": "m", "messages": [{"role": "user", "content": "12+34="}], "max_tokens": 8, "logprobs": True}


def http_clients() -> list[Row]:
    """Measure both against one paced server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    try:
        return [
            Row(what=f"request by our pool, {AT_ONCE} at once", cpu_ms=_measured(_by_pool, url)),
            Row(what=f"request by httpx, {AT_ONCE} at once", cpu_ms=_measured(_by_httpx, url)),
        ]
    finally:
        server.kill()
        server.join()


def _measured(measure: Callable[[str], Awaitable[float]], url: str) -> float:
    return anyio.run(measure, url, backend_options={"use_uvloop": True})


async def _by_pool(url: str) -> float:
    pool = Pool(url, headers={}, connections=AT_ONCE, direct=True)

    async def work() -> Any:
        return json.loads((await pool.request("POST", PATH, body=BODY)).content)

    try:
        return await cpu_ms(work, times=TIMES, at_once=AT_ONCE)
    finally:
        await pool.close()


async def _by_httpx(url: str) -> float:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

        async def work() -> Any:
            return (await client.post(url + PATH, json=BODY)).json()

        return await cpu_ms(work, times=TIMES, at_once=AT_ONCE)


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
