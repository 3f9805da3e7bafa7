"""The disk of one life: it fills up, and what of the store is on it when the process dies."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

T = TypeVar("T")

WAL = "store.db-wal"
KEPT = ("store.db", WAL)


@dataclass(slots=True, kw_only=True)
class SimulatedDisk:
    """Runs the store's SQL at once, and knows what of it is on disk."""

    directory: Path
    rng: Random
    at_work: Callable[[], Literal["kill", "power cut"] | None]
    """Called before each piece of work; whether the process dies there, and how."""
    killed: Callable[[], None] = lambda: None
    full: bool = False
    dead: bool = False
    torn: int = 0
    """Bytes of the write-ahead log that survive the death."""
    unsynced: int | None = None
    """Where in it begins what a power cut may cost."""
    connection: sqlite3.Connection | None = None
    kept: dict[str, bytes] = field(default_factory=dict)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        self.connection = connection = sqlite3.connect(path, isolation_level=None, factory=_Connection)
        connection.disk = self
        return connection

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*, unless the process dies before, or while its commit is written."""
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        how = self.at_work()
        if how is None:
            return work()
        before = self.wal_size()
        place = self.rng.choice(("before", "during", "after"))
        if place != "before":
            work()
        after = self.wal_size()
        # In the middle of a commit, a part of it has been written.
        survives = before + int((after - before) * self.rng.random()) if place == "during" else after
        if how == "power cut" and self.unsynced is not None:
            survives = min(survives, self.unsynced + int((after - self.unsynced) * self.rng.random()))
        self.torn, self.dead = survives, True
        self.killed()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    def die(self) -> None:
        """Nothing is written from now on."""
        if not self.dead:
            self.torn, self.dead = self.wal_size(), True

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

    def wal_size(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return (self.directory / WAL).stat().st_size
        except FileNotFoundError:
            return 0


class _Connection(sqlite3.Connection):
    """Tells its disk what is synced, and has no room when that has none."""

    disk: SimulatedDisk
    synced = True

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA synchronous"):
            self.synced = "FULL" in sql
        elif sql == "COMMIT":
            if self.disk.full:
                raise sqlite3.OperationalError("database or disk is full")
            if self.synced:
                self.disk.unsynced = None
            elif self.disk.unsynced is None:
                self.disk.unsynced = self.disk.wal_size()
        return super().execute(sql, *parameters)
