"""Add a number of two digits and one of one digit: an environment, training tasks and held-out tasks."""

from __future__ import annotations

import zlib
from typing import Any

from hud_orchestrator import Environment, TaskRow

env = Environment("arithmetic")


@env.template()
async def add(a: int, b: int) -> Any:
    """Add two numbers; only the exact sum counts."""
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0


def _is_held_out(row: TaskRow) -> bool:
    """One problem in ten, chosen by its text alone: the same for everybody, and never seen in training."""
    return zlib.crc32(f"{row.args['a']}+{row.args['b']}=".encode()) % 10 == 0


_all = [add(a=a, b=b) for a in range(10, 100) for b in range(10)]
train = [row for row in _all if not _is_held_out(row)]
heldout = [row for row in _all if _is_held_out(row)]
