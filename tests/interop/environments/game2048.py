"""2048 against the SDK's public API: ``move`` is a tool of an MCP server, published as a capability.

One environment serves many games at once. Which one a call belongs to, its address says: every episode
refines the capability's address in its start frame.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_request
from hud import Environment
from hud.capabilities import Capability

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "game2048"))

from board import Board

KEYS = {"8": "up", "2": "down", "4": "left", "6": "right"}

env = Environment("sdk-2048")
tools = FastMCP("sdk-2048")
games: dict[str, Board] = {}
_serving: list[tuple[uvicorn.Server, asyncio.Task[None], str]] = []


@tools.tool
def move(direction: str = "") -> str:
    """Slide all tiles: up, down, left or right, or a key of the number pad."""
    board = games[get_http_request().query_params["game"]]
    return drawn(board) if board.move(KEYS.get(direction, direction)) else "illegal"


@env.initialize
async def start() -> None:
    """Listen before the address is published, so that nobody comes too early."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(tools.http_app(), log_config=None))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    _serving.append((server, asyncio.create_task(server.serve(sockets=[listener])), url))
    env.add_capability(Capability.mcp(name="board", url=url, transport="streamable-http"))


@env.shutdown
async def stop() -> None:
    """Let the server go."""
    server, task, _ = _serving.pop()
    server.should_exit = True
    await task


@env.template()
async def game(seed: int, goal: int = 16) -> AsyncGenerator[Any, Any]:
    """Play on three by three; half for the highest tile, half for the score."""
    name, board = uuid.uuid4().hex, Board(seed=seed, size=3)
    games[name] = board
    try:
        yield {"prompt": drawn(board), "bindings": {"board": {"url": f"{_serving[0][2]}?game={name}"}}}
        merges = goal * (goal.bit_length() - 2)
        yield min(1.0, board.highest / goal) / 2 + min(1.0, board.score / merges) / 2
    finally:
        del games[name]


def drawn(board: Board) -> str:
    """The board, a character for each cell: the power of two that is in it."""
    return "\n".join(
        "".join(str(tile.bit_length() - 1) if tile else "." for tile in row) for row in board.rows
    )
