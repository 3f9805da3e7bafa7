"""The environment with a tool, on the hud SDK's public API: its tools are an MCP server of their own."""

import asyncio
import socket

import uvicorn
from fastmcp import FastMCP
from hud import Environment
from hud.capabilities import Capability

env = Environment("talking")
tools = FastMCP("talking")
serving: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
said: list[str] = []


@tools.tool
def say(word: str) -> str:
    """Say a word."""
    said.append(word)
    return "ok"


@env.initialize
async def start() -> None:
    """Listen before the address is published."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(tools.http_app(), log_config=None))
    serving.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    env.add_capability(Capability.mcp(name="talking", url=url, transport="streamable-http"))


@env.shutdown
async def stop() -> None:
    """Let the server go."""
    server, task = serving.pop()
    server.should_exit = True
    await task


@env.template()
async def talk(wanted: int):
    """Say as many words as wanted. Sessions share the list, so the grade is only roughly right."""
    yield "talk"
    yield min(len(said) / wanted, 1.0)
