"""Sending to a stage that may have left."""

from __future__ import annotations

from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

T = TypeVar("T")


async def offer(stream: MemoryObjectSendStream[T], record: T) -> bool:
    """Send *record*; whether anybody still listens. The next stage leaves by closing its stream."""
    try:
        await stream.send(record)
    except anyio.BrokenResourceError:
        return False
    return True
