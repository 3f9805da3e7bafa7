"""Arithmetic, written against the public API of the hud SDK, and served by it: see run.yaml beside this."""

from collections.abc import AsyncGenerator
from typing import Any

from hud import Environment

env = Environment("sums")


@env.template()
async def add(a: int, b: int) -> AsyncGenerator[Any, Any]:
    """Add two numbers; only the exact sum counts."""
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0
