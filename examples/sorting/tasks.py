"""Sort five digits: another environment for the same daemon and the same tiny model."""

from __future__ import annotations

import random
import zlib
from typing import Any

from hud_orchestrator import Environment, EvaluationResult, SubScore, TaskRow

NUM_DIGITS = 5

env = Environment("sorting")


@env.template()
async def sort(digits: str) -> Any:
    """Put the digits in order, smallest first; only the exact order counts."""
    answer = (yield f"sort {digits}") or ""
    right = "".join(sorted(digits))
    placed = sum(given == wanted for given, wanted in zip(answer, right, strict=False)) / len(right)
    yield EvaluationResult(
        reward=float(answer == right),
        info={"right": right},
        subscores=[
            SubScore(name="exact", value=float(answer == right)),
            SubScore(name="placed", value=placed, weight=0),
        ],
    )


def _rows(num: int, *, held_out: bool, seed: int) -> list[TaskRow]:
    """Problems whose text is held out, or whose text is not."""
    chance = random.Random(seed)
    rows: dict[str, TaskRow] = {}
    while len(rows) < num:
        digits = "".join(chance.choices("0123456789", k=NUM_DIGITS))
        if (zlib.crc32(f"sort {digits}".encode()) % 10 == 0) is held_out:
            rows[digits] = sort(digits=digits)
    return list(rows.values())


train = _rows(1000, held_out=False, seed=0)
heldout = _rows(96, held_out=True, seed=1)
