"""An environment of ours with a tool, a state of its own for every episode, and a second turn."""

from __future__ import annotations

from typing import Any

from hud_orchestrator import Environment

env = Environment("shop", version="7")


@env.tool()
async def put(what: str = "") -> str:
    """Put something into the basket."""
    env.state.basket.append(what)
    return f"{len(env.state.basket)} things"


@env.template()
async def buy(count: int) -> Any:
    """Put as many things into the basket as wanted."""
    env.state.basket = []
    yield "buy"
    yield min(len(env.state.basket) / count, 1.0)


@env.template()
async def add(a: int, b: int) -> Any:
    """Add two numbers, and say so once more."""
    answer = yield f"{a}+{b}="
    again = yield "sure?"
    yield {"score": float(answer == str(a + b)), "again": again, "info": {"sum": a + b}}
