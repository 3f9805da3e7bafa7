"""Processor time per piece of work."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured thing."""

    what: str
    cpu_ms: float
    """Milliseconds of this process's processor time per piece of work."""


async def cpu_ms(work: Callable[[], Awaitable[object]], *, times: int, at_once: int) -> float:
    """Do *work* some *times*, *at_once* of them together, after one that is not counted."""
    await work()
    left = times

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work()

    began = time.process_time()
    async with anyio.create_task_group() as crew:
        for _ in range(at_once):
            crew.start_soon(worker)
    return (time.process_time() - began) / times * 1000
