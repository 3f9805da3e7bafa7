"""The environment of one turn, on the hud SDK's public API."""

from hud import Environment

env = Environment("bench")


@env.template()
async def add(a: int, b: int):
    """Two numbers."""
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0
