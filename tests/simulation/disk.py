"""The disk of one life: it fills up, and what of the store is on it when the process dies."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

from hud_orchestrator.store.journal import Journal, Statement

T = TypeVar("T")

WAL = "store.db-wal"
JOURNAL = "store.db-noted"
KEPT = ("store.db", WAL, JOURNAL)


@dataclass(slots=True)
class Unsafe:
    """What a power cut may cost, also one in a later life."""

    wal_from: int | None = None
    """Where in the write-ahead log that begins."""
    journal_from: int = 0
    """Where in the journal."""
    cleared: bytes = b""
    """What the journal had when it was cleared, which may come back."""


@dataclass(slots=True, kw_only=True)
class SimulatedDisk:
    """Runs the store's SQL at once, and knows what of it is on disk."""

    directory: Path
    rng: Random
    at_work: Callable[[], Literal["kill", "power cut"] | None]
    """Called before each piece of work; whether the process dies there, and how."""
    unsafe: Unsafe = field(default_factory=Unsafe)
    """Handed from one life to the next."""
    killed: Callable[[], None] = lambda: None
    full: bool = False
    dead: bool = False
    torn: int = 0
    """Bytes of the write-ahead log that survive the death."""
    noted: bytes | None = None
    """What is in the journal after the death, if that came while something was written."""
    found: int = 0
    """Bytes of the write-ahead log when it was opened."""
    connection: sqlite3.Connection | None = None
    kept: dict[str, bytes] = field(default_factory=dict)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        self.connection = connection = sqlite3.connect(path, isolation_level=None, factory=_Connection)
        connection.disk = self
        self.found = self.wal_size()
        if not self.found:
            self.unsafe.wal_from = None
        return connection

    def journal(self, path: Path) -> Journal:
        """Open or create a journal."""
        return _Journal(path, self)

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*, unless the process dies before, or while its commit is written."""
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        how = self.at_work()
        if how is None:
            return work()
        before, had, unsafe = self.wal_size(), self.journal_bytes(), replace(self.unsafe)
        place = self.rng.choice(("before", "during", "after"))
        if place != "before":
            work()
        after, has = self.wal_size(), self.journal_bytes()
        survives, noted = after, has
        if place == "during" and after == before:
            # In the middle of a record, a part of it has been written.
            noted = has[: len(had) + int((len(has) - len(had)) * self.rng.random())]
        elif place == "during":
            # In the middle of a commit too, and the journal is cleared only when that is over.
            part = before + int((after - before) * self.rng.random())
            survives, noted = self.rng.choice((part, after)), had
        else:
            unsafe = self.unsafe
        if how == "power cut":
            if unsafe.wal_from is not None:
                survives = min(survives, unsafe.wal_from + int((after - unsafe.wal_from) * self.rng.random()))
            lost = max(0, len(noted) - unsafe.journal_from) * self.rng.random()
            noted = noted[: len(noted) - int(lost)]
            if not unsafe.journal_from:
                noted = self.rng.choice((noted, unsafe.cleared))
            unsafe = Unsafe(journal_from=len(noted))
        self.unsafe.wal_from, self.unsafe.cleared = unsafe.wal_from, unsafe.cleared
        self.unsafe.journal_from = min(unsafe.journal_from, len(noted))
        self.torn, self.noted, self.dead = survives, noted, True
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
        if self.noted is not None:
            self.kept[JOURNAL] = self.noted
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

    def journal_bytes(self) -> bytes:
        """What is noted."""
        path = self.directory / JOURNAL
        return path.read_bytes() if path.exists() else b""


class _Journal(Journal):
    """Has no room when its disk has none, and remembers what it had."""

    def __init__(self, path: Path, disk: SimulatedDisk) -> None:
        super().__init__(path)
        self._disk = disk

    def note(self, statements: Sequence[Statement]) -> None:
        if self._disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        super().note(statements)

    def sync(self) -> None:
        self._disk.unsafe.journal_from = self.size

    def clear(self) -> None:
        self._disk.unsafe.cleared, self._disk.unsafe.journal_from = self._disk.journal_bytes(), 0
        super().clear()


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
            before = self.disk.wal_size()
            done = super().execute(sql, *parameters)
            # What changes nothing does not wait. Over what a death has torn, the log does not grow.
            if self.synced and (self.disk.wal_size() > before or before == self.disk.found):
                self.disk.unsafe.wal_from = None
            elif self.disk.unsafe.wal_from is None:
                self.disk.unsafe.wal_from = before
            return done
        return super().execute(sql, *parameters)
