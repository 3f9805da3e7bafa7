"""So many at once, over all processes of a machine."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

LOOK_AGAIN_S = 0.05
"""A name that is free again tells nobody, so one looks."""


@asynccontextmanager
async def turn(name: str, *, at_once: int) -> AsyncGenerator[None, None]:
    """Hold one of the *at_once* turns of *name* for the length of the block.

    A turn is a socket bound to a name of Linux's abstract namespace: one process has it, and the kernel
    gives it back when that process is killed, which happens to environments. There is no file to leave
    behind.
    """
    digest = hashlib.sha256(f"{os.getuid()} {name}".encode()).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as place:
        while not _taken(place, digest, at_once):  # noqa: ASYNC110  (another process has no event)
            await anyio.sleep(LOOK_AGAIN_S * random.uniform(0.5, 1.5))  # noqa: S311  (so that none starves)
        yield


def _taken(place: socket.socket, digest: str, at_once: int) -> bool:
    for number in range(at_once):
        try:
            place.bind(f"\0hud-orchestrator-turn-{digest}-{number}")
        except OSError:
            continue
        return True
    return False
