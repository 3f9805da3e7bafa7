"""What the service hosts for the SDK: an environment of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from hud_orchestrator import Environment

env = Environment("ours")


@env.template()
async def add(a: int, b: int) -> AsyncGenerator[Any, Any]:
    """Add two numbers; only the exact sum counts."""
    answer = yield f"{a}+{b}="
    yield {"score": 1.0 if answer == str(a + b) else 0.0, "info": {"sum": a + b}}


@env.template()
async def slow() -> AsyncGenerator[Any, Any]:
    """Never grade."""
    yield "1+1="
    await asyncio.sleep(3600)
    yield 1.0


@env.template()
async def cruel() -> AsyncGenerator[Any, Any]:
    """Fail to grade."""
    yield "1+1="
    raise RuntimeError("no grades today")
