"""The disk of one life: what of the store is on it when the process dies."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

WAL = "store.db-wal"
KEPT = ("store.db", WAL)


@dataclass(slots=True)
class SimulatedDisk:
    """Runs the store's SQL at once, and knows what of it is on disk."""

    directory: Path
    rng: Random
    at_work: Callable[[], str | None]
    """Called before each piece of work; ``before``, ``during`` or ``after`` kills there."""
    killed: Callable[[], None] = lambda: None
    dead: bool = False
    torn: int = 0
    """Bytes of the write-ahead log that survive the death."""
    connection: sqlite3.Connection | None = None
    kept: dict[str, bytes] = field(default_factory=dict)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        self.connection = sqlite3.connect(path, isolation_level=None)
        return self.connection

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work*, unless the process dies before, or while its commit is written."""
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        when = self.at_work()
        if when is None:
            return work()
        before = self._wal_size()
        if when == "before":
            return await self._end(before)
        work()
        after = self._wal_size()
        # A commit is on disk when it has been synced; in the middle of that, a part of it is.
        return await self._end(
            after if when == "after" else before + int((after - before) * self.rng.random())
        )

    def die(self) -> None:
        """Nothing is written from now on."""
        if not self.dead:
            self.torn, self.dead = self._wal_size(), True

    def keep(self) -> None:
        """Remember what is on disk, and let nothing change it any more."""
        for name in KEPT:
            path = self.directory / name
            if path.exists():
                self.kept[name] = path.read_bytes()
        if self.connection is not None:
            self.connection.close()

    def put_back(self) -> None:
        """What the next life finds."""
        for path in self.directory.glob("store.db*"):
            path.unlink()
        for name, content in self.kept.items():
            (self.directory / name).write_bytes(content[: self.torn] if name == WAL else content)
        self.kept.clear()

    async def _end(self, survives: int) -> Any:
        self.torn, self.dead = survives, True
        self.killed()
        await asyncio.Event().wait()

    def _wal_size(self) -> int:
        try:
            return (self.directory / WAL).stat().st_size
        except FileNotFoundError:
            return 0
