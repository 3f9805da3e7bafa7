"""The SQLite file of a run: a piece of work at a time, and commits that are on disk before they return.

What may be lost in a power cut without harm does not wait for the disk: it survives the end of the process,
and reaches the disk with the next commit that does wait, as all of them go to one file in their order.

The event loop does it itself: a commit takes a millisecond, and to hand it to a thread and back is to wait
for whatever else the loop has to do. On a disk that lets it wait, threads do it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import anyio
import anyio.to_thread

from hud_orchestrator.errors import StateError, StateUnwritable
from hud_orchestrator.logs import get_logger

T = TypeVar("T")

log = get_logger()

SCHEMA_VERSION = 7

Survives = Literal["power cut", "kill"]
"""The worst that a commit which has returned is not lost by."""

_SYNCHRONOUS: dict[Survives, str] = {"power cut": "FULL", "kill": "NORMAL"}

_CHECKPOINT_PAGES: dict[Survives, int] = {"power cut": 1000, "kill": 0}
"""Of the write-ahead log, when a commit folds it into the file, which waits for the disk; 0: never."""

SLOW_S = 0.02
"""Seconds that work may keep the event loop from everything else."""

LEFT_TO_THREADS = 100
"""Pieces of work that are done by threads after one that took longer."""


class Disk(Protocol):
    """Where a store is kept, and how blocking work on it is run: one piece after the other."""

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file, without transactions of the driver's own."""
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


class Database:
    """Run SQL, one transaction at a time."""

    def __init__(self, path: Path, *, disk: Disk | None = None, migrates: bool = True) -> None:
        """Open or create the file.

        Args:
            path: of the file.
            disk: what opens it and runs the SQL.
            migrates: whether a store of an earlier version is brought up to date: only by who holds the run.

        Raises:
            StateUnwritable: the file cannot be written.
            StateError: it is not a store, or one of another version.
        """
        self.path = path
        disk = disk or RealDisk()
        self._run = disk.run
        self._survives: Survives = "power cut"
        with _explained(path):
            self._connection = disk.open(path)
            self._connection.row_factory = sqlite3.Row
            try:
                self._prepare(migrates=migrates)
            except BaseException:
                # Left to the collector, it would go on holding a file that nobody uses.
                self._connection.close()
                raise

    async def write(self, sql: str, *parameters: object, survives: Survives = "power cut") -> None:
        """Run one statement and commit it."""
        await self.transaction(lambda connection: connection.execute(sql, parameters), survives=survives)

    async def read(self, sql: str, *parameters: object, quick: bool = False) -> list[sqlite3.Row]:
        """All rows of a query; see :meth:`look`."""
        return await self.look(lambda connection: connection.execute(sql, parameters).fetchall(), quick=quick)

    async def look(self, work: Callable[[sqlite3.Connection], T], *, quick: bool = False) -> T:
        """Run *work*, which may read as often as it wants to, and writes nothing.

        It is *quick* if it takes no longer than a commit.
        """
        return await self._run(lambda: self._looked(work), quick=quick)

    async def transaction(
        self, work: Callable[[sqlite3.Connection], T], *, survives: Survives = "power cut"
    ) -> T:
        """Run *work* in one transaction: all of it is kept when this returns, or none of it."""
        return await self._run(lambda: self._transact(work, survives), quick=True)

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        self._connection.close()

    def _looked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with _explained(self.path):
            return work(self._connection)

    def _transact(self, work: Callable[[sqlite3.Connection], T], survives: Survives) -> T:
        with _explained(self.path):
            if survives != self._survives:
                self._connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[survives]}")
                self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES[survives]}")
                self._survives = survives
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has done it itself when it ran out of room.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result

    def _prepare(self, *, migrates: bool) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        self._refuse(version, migrates=migrates)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        if version == 0:
            self._run_script("schema.sql", SCHEMA_VERSION)
        elif version < SCHEMA_VERSION:
            self._migrate(version)
        self._connection.execute("PRAGMA foreign_keys = ON")

    def _refuse(self, version: int, *, migrates: bool) -> None:
        """Look whether the file is one to work with, before anything of it is changed."""
        if version == 0 and self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise StateError(f"{self.path}: is a database of another program; choose another run.name")
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{self.path}: store has version {version}, this program reads up to {SCHEMA_VERSION}; "
                "continue it with the program that wrote it, or choose another run.name"
            )
        if 0 < version < SCHEMA_VERSION and not migrates:
            raise StateError(
                f"{self.path}: store has version {version}, this program writes {SCHEMA_VERSION}; "
                "hud-orchestrate run brings it up to date"
            )

    def _migrate(self, version: int) -> None:
        """Bring an older store up to date, one version at a time, and keep a copy of how it was."""
        backup = self.path.with_name(f"{self.path.name}.v{version}")
        with closing(sqlite3.connect(backup)) as copy:
            self._connection.backup(copy)
        for newer in range(version + 1, SCHEMA_VERSION + 1):
            self._run_script(f"migrations/{newer:04}.sql", newer)
        log.info("store.migrated", version=SCHEMA_VERSION, before=version, backup=str(backup))

    def _run_script(self, name: str, version: int) -> None:
        """All of a script and the version it leads to, or, after a kill in between, nothing."""
        script = files("hud_orchestrator.store").joinpath(name).read_text()
        # A table cannot be replaced while others refer to it, unless references are not looked at.
        self._connection.execute("PRAGMA foreign_keys = OFF")
        self._connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {version}; COMMIT")


def rows(connection: sqlite3.Connection, sql: str, values: Sequence[tuple[Any, ...]]) -> None:
    """Run *sql* once per tuple of *values*."""
    if values:
        connection.executemany(sql, values)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        # A table or a column that is missing is an operational error to SQLite, like a full disk.
        if isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such "):
            raise StateUnwritable(
                f"{path}: cannot be written: {error}; free some space or mend permissions"
            ) from error
        raise StateError(
            f"{path}: is not a store of this program, or is damaged: {error}; choose another run.name"
        ) from error
