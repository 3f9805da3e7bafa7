"""Addition of two numbers: an environment and its tasks, to change into your own.

``hud-orchestrate init`` writes this file. A template is an async generator: it yields a prompt,
receives the model's answer, and yields a grade from 0 to 1. Calling it makes one task.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator

from hud_orchestrator import Environment

env = Environment("arithmetic")


@env.template()
async def add(a: int, b: int) -> AsyncGenerator[str | float, str | None]:
    """Add two numbers."""
    answer = yield f"{a}+{b}="
    # There is no answer when the agent was cut short before it gave one.
    yield 1.0 if answer is not None and answer.strip() == str(a + b) else 0.0


def _is_heldout(a: int, b: int) -> bool:
    """Keep one problem in ten out of training, always the same ones."""
    return zlib.crc32(f"{a}+{b}=".encode()) % 10 == 0


_problems = [(a, b) for a in range(10, 100) for b in range(10)]

# The run file names these two lists: tasks.py:train and tasks.py:heldout.
train = [add(a=a, b=b) for a, b in _problems if not _is_heldout(a, b)]
heldout = [add(a=a, b=b) for a, b in _problems if _is_heldout(a, b)]
