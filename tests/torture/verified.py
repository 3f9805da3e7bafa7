"""Tasks whose grade is somebody else's business."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

from hud_orchestrator import Environment

work = Environment("work")
court = Environment("court")

put_away: list[str] = []


@work.template()
async def write(how: str = "") -> AsyncGenerator[Any, Any]:
    """Grade a little, or fail to."""
    try:
        answer = yield "write"
        if how == "fail":
            raise RuntimeError("no pencil")
        yield {"score": 0.25, "said": answer, "pid": os.getpid()}
    finally:
        put_away.append("the desk")


@work.template()
async def check(how: str = "") -> AsyncGenerator[Any, Any]:
    """Look at what was written."""
    seen = yield None
    if how == "fail":
        raise RuntimeError("no glasses")
    yield {"score": 1.0, "seen": seen, "pid": os.getpid(), "put_away": list(put_away)}


@court.template()
async def judge(how: str = "") -> AsyncGenerator[Any, Any]:
    """Look at it from elsewhere."""
    if how == "start":
        raise RuntimeError("the court is closed")
    seen = yield None
    if how == "exit":
        os._exit(1)
    yield {"score": 0.5, "seen": seen, "isError": how == "error"}
