"""Sending to a stage that may have left, and taking all that is there."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

T = TypeVar("T")


async def offer(stream: MemoryObjectSendStream[T], record: T) -> bool:
    """Send *record*; whether anybody still listens. The next stage leaves by closing its stream."""
    try:
        await stream.send(record)
    except anyio.BrokenResourceError:
        return False
    return True


def offered(stream: MemoryObjectReceiveStream[T]) -> list[T]:
    """What others are about to send, without waiting for more."""
    found: list[T] = []
    # The end of the stream is told again to whoever receives next.
    with suppress(anyio.WouldBlock, anyio.EndOfStream):
        while True:
            found.append(stream.receive_nowait())
    return found
