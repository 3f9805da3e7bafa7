"""Context managers written for plain asyncio, entered and left without getting in anybody's way.

anyio repeats a cancellation at every await, which cuts through cleanup that was written to see it once. So
a guest runs as a task of its own, and hears of an end in one way only::

    cut off while it comes in     one CancelledError, then leave_s to put things away
    leaving after the block       asked to leave, then leave_s to put things away; it is not cancelled
    not done by then              it goes on beside us, and what it held up goes on without it
    at the end of all             LAST_S more, one CancelledError, and it is given up with a word in the log
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.logs import get_logger

T = TypeVar("T")

LAST_S = 30.0
"""For guests that still put things away at the end: a sandbox somewhere that is not ended costs money."""

log = get_logger()


class Guests:
    """Those that are in. Use as an async context manager: leaving waits for those that linger."""

    def __init__(self) -> None:
        self._lingering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):  # bounded by the waits inside
            await _wait(self._lingering, LAST_S)
            for task in self._lingering:
                task.cancel()
            await _wait(self._lingering, LAST_S / 10)
        for task in self._lingering:
            log.warning("guest.abandoned", name=task.get_name(), after_s=LAST_S)

    @asynccontextmanager
    async def held(
        self, manager: AbstractAsyncContextManager[T], *, named: str, leave_s: float
    ) -> AsyncGenerator[T, None]:
        """Enter *manager* in a task of its own, and leave it with the block, in *leave_s* seconds at most.

        Raises:
            EnvironmentFailed: it raised while it came in.
        """
        stay = _Stay(manager)
        task = asyncio.get_running_loop().create_task(stay.run(), name=named)
        try:
            first: set[asyncio.Future[Any]] = {task, stay.entered}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            yield stay.value(named)
        finally:
            if not stay.entered.done():
                task.cancel()
            # Also then: httpx, for one, can lose a cancellation, and come in all the same.
            stay.leave.set()
            with anyio.CancelScope(shield=True):  # bounded by the wait inside
                await _wait({task}, leave_s)
            if not task.done():
                log.warning("guest.lingering", name=named, after_s=leave_s)
                self._lingering.add(task)
                task.add_done_callback(self._lingering.discard)
            elif stay.failure is not None and stay.entered.done():
                log.warning("guest.left_badly", name=named, reason=_told(stay.failure))


class _Stay(Generic[T]):
    """One guest's stay."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self.entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.leave = asyncio.Event()
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Come in, stay until it is time to leave, and leave."""
        try:
            async with self._manager as value:
                self.entered.set_result(value)
                await self.leave.wait()
        except asyncio.CancelledError as error:
            # Ours, or of a task of the guest's own: either way it is over, and nobody else hears of it.
            self.failure = error
        except (Exception, SystemExit) as error:
            self.failure = error

    def value(self, named: str) -> T:
        """What it came in with.

        Raises:
            EnvironmentFailed: it did not.
        """
        if self.entered.done():
            return self.entered.result()
        assert self.failure is not None  # the task is over
        raise EnvironmentFailed(f"{named}: {_told(self.failure)}") from self.failure


def _told(failure: BaseException) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split()) or 'no reason given'}"


async def _wait(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        await asyncio.wait(set(tasks), timeout=seconds)
