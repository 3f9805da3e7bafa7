"""What blocking work on the files of a store is run on.

The event loop does it itself: a commit takes a millisecond, and to hand it to a thread and back is to wait
for whatever else the loop has to do. On a disk that lets it wait, threads do it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from hud_orchestrator.store.journal import Journal

T = TypeVar("T")

SLOW_S = 0.02
"""Seconds that work may keep the event loop from everything else."""

LEFT_TO_THREADS = 100
"""Pieces of work that are done by threads after one that took longer."""


class Disk(Protocol):
    """Where a store is kept, and how blocking work on it is run: one piece after the other."""

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file, without transactions of the driver's own."""
        ...

    def journal(self, path: Path) -> Journal:
        """Open or create a journal."""
        ...

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*, and return what it does; *quick* is what takes no longer than a commit."""
        ...


class RealDisk:
    """Runs quick work at once and other work in a thread, a piece at a time."""

    def __init__(self) -> None:
        # Work waits for its turn here and never runs side by side: a connection has one transaction.
        self._turn = anyio.CapacityLimiter(1)
        self._left_to_threads = 0
        """How much of what is quick a thread does next, as some of it was slow."""

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def journal(self, path: Path) -> Journal:
        """Open or create a journal."""
        return Journal(path)

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*. Not abandoned on cancellation: a commit under way is waited for."""
        if not quick:
            return await anyio.to_thread.run_sync(work, limiter=self._turn)
        if self._left_to_threads:
            return await anyio.to_thread.run_sync(self._timed, work, limiter=self._turn)
        try:
            # Without a look at what else there is to do, if it is free.
            self._turn.acquire_nowait()
        except anyio.WouldBlock:
            await self._turn.acquire()
        try:
            return self._timed(work)
        finally:
            self._turn.release()

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            slow = time.perf_counter() - began > SLOW_S
            self._left_to_threads = LEFT_TO_THREADS if slow else max(0, self._left_to_threads - 1)
