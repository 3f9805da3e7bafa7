"""An environment with a tool: an MCP server of its own, published as a capability."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
from fastmcp import FastMCP
from hud import Environment
from hud.capabilities import Capability

env = Environment("words")
tools = FastMCP("words")
said: list[str] = []
_serving: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []


@tools.tool
def say(word: str = "") -> str:
    """Say a word; nothing at all is also one."""
    said.append(word)
    return "ok"


@env.initialize
async def start() -> None:
    """Listen before the address is published, so that nobody comes too early."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(tools.http_app(), log_config=None))
    _serving.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    env.add_capability(Capability.mcp(name="words", url=url, transport="streamable-http"))


@env.shutdown
async def stop() -> None:
    """Let the server go."""
    server, task = _serving.pop()
    server.should_exit = True
    await task


@env.template()
async def chat(wanted: int) -> AsyncGenerator[Any, Any]:
    """Say as many words as wanted."""
    said.clear()
    yield "talk"
    yield min(len(said) / wanted, 1.0)
