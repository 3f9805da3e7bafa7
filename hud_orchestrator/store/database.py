"""The SQLite file of a run: a piece of work at a time, and commits that are on disk before they return.

What may be lost in a power cut without harm does not wait for the disk: it survives the end of the process,
and reaches the disk with the next commit that does wait, as all of them go to one file in their order.

What comes by the dozen and is not looked at before long is noted in a journal beside the file, which survives
the end of the process too, and becomes rows at the beginning of the next piece of work that may have to do
with it, or when the daemon waits for something else anyway.

The event loop does it itself: a commit takes a millisecond, and to hand it to a thread and back is to wait
for whatever else the loop has to do. On a disk that lets it wait, threads do it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec

from hud_orchestrator.errors import OrchestratorError, StateError, StateUnwritable
from hud_orchestrator.logs import get_logger
from hud_orchestrator.store.journal import Journal

T = TypeVar("T")

log = get_logger()

SCHEMA_VERSION = 7

Survives = Literal["power cut", "kill"]
"""The worst that a commit which has returned is not lost by."""

_SYNCHRONOUS: dict[Survives, str] = {"power cut": "FULL", "kill": "NORMAL"}

NOTED_BYTES = 2**20
"""Of the journal, when what is noted becomes rows at once."""

ROWS_AFTER_S = 1.0
"""Seconds that what is noted may be missing for who looks at the file from outside."""

LULL_S = 0.01
"""Seconds from the beginning of a lull until rows are made in it: what it waits for goes first."""

Statement = tuple[str, Sequence[tuple[Any, ...]]]
"""SQL, and the parameters of every time that it is to be run."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Statement]).decode

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


class Database:
    """Run SQL, one transaction at a time."""

    def __init__(self, path: Path, *, disk: Disk | None = None, holds: bool = True) -> None:
        """Open or create the file.

        Args:
            path: of the file.
            disk: what opens it and runs the SQL.
            holds: whether the run is held: only who holds it brings a store of an earlier version up to date,
                and makes rows of what was noted before the end of whoever held it last.

        Raises:
            StateUnwritable: the file cannot be written.
            StateError: it is not a store, or one of another version.
        """
        self.path = path
        disk = disk or RealDisk()
        self._run = disk.run
        self._survives: Survives = "power cut"
        self._noted: list[Statement] = []
        """What is in the journal and not in the file."""
        self._journal: Journal | None = None
        self._noting, self._lull = anyio.Event(), anyio.Event()
        with _explained(path):
            self._connection = disk.open(path)
            self._connection.row_factory = sqlite3.Row
            try:
                self._prepare(disk if holds else None)
            except BaseException:
                # Left to the collector, it would go on holding a file that nobody uses.
                self._let_go()
                raise

    async def write(
        self, sql: str, *parameters: object, survives: Survives = "power cut", apart: bool = False
    ) -> None:
        """Run one statement and commit it; see :meth:`transaction`."""
        await self.transaction(
            lambda connection: connection.execute(sql, parameters), survives=survives, apart=apart
        )

    async def read(self, sql: str, *parameters: object, quick: bool = False) -> list[sqlite3.Row]:
        """All rows of a query; see :meth:`look`."""
        return await self.look(lambda connection: connection.execute(sql, parameters).fetchall(), quick=quick)

    async def look(self, work: Callable[[sqlite3.Connection], T], *, quick: bool = False) -> T:
        """Run *work*, which may read as often as it wants to, and writes nothing.

        It is *quick* if it takes no longer than a commit, and asks for nothing that may only be noted.
        """
        return await self._run(lambda: self._looked(work, apart=quick), quick=quick)

    async def transaction(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        survives: Survives = "power cut",
        apart: bool = False,
    ) -> T:
        """Run *work* in one transaction: all of it is kept when this returns, or none of it.

        With what is noted by then, which survives the same; *apart* is what has nothing to do with that.
        """
        return await self._run(lambda: self._transact(work, survives, apart=apart), quick=True)

    async def note(self, statements: Sequence[Statement]) -> None:
        """Keep from a kill what *statements* do; they are run before whatever may have to do with it.

        A kill may have them run twice: the second time they change nothing.
        """
        await self._run(lambda: self._note(statements), quick=True)
        self._noting.set()

    def lull(self) -> None:
        """Tell that the daemon is about to wait for something, so that rows cost nobody any time."""
        if self._noted:
            self._lull.set()

    async def keep_up(self) -> None:
        """Make rows of what is noted in the next lull, and before long in any case."""
        while True:
            await self._noting.wait()
            with anyio.move_on_after(ROWS_AFTER_S):
                await self._lull.wait()
                await anyio.sleep(LULL_S)
            self._noting, self._lull = anyio.Event(), anyio.Event()
            await self._run(self._make_rows, quick=True)

    def close(self) -> None:
        """Make rows of what is noted, fold the write-ahead log into the file and close it."""
        # What cannot be written now, the next one who holds the run finds in the journal.
        with suppress(OrchestratorError):
            self._make_rows("power cut")
        self._let_go()

    def _let_go(self) -> None:
        self._connection.close()
        if self._journal is not None:
            self._journal.close()

    def _note(self, statements: Sequence[Statement]) -> None:
        assert self._journal is not None, "only who holds a run notes something"
        with _explained(self.path):
            self._journal.append(_encode(statements))
            self._noted += statements
            if self._journal.size >= NOTED_BYTES:
                self._make_rows("power cut")

    def _make_rows(self, survives: Survives = "kill") -> None:
        """Make rows of what is noted."""
        if self._noted:
            self._transact(lambda _: None, survives)

    def _looked(self, work: Callable[[sqlite3.Connection], T], *, apart: bool) -> T:
        with _explained(self.path):
            if not apart:
                self._make_rows()
            return work(self._connection)

    def _transact(
        self, work: Callable[[sqlite3.Connection], T], survives: Survives, *, apart: bool = False
    ) -> T:
        with _explained(self.path):
            if survives != self._survives:
                self._connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[survives]}")
                self._survives = survives
            if apart and survives == "power cut" and self._noted and self._journal is not None:
                self._journal.sync()
            self._connection.execute("BEGIN IMMEDIATE")
            changes = self._connection.total_changes
            try:
                for statement in () if apart else self._noted:
                    rows(self._connection, *statement)
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has done it itself when it ran out of room.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            if not apart:
                self._noted.clear()
            # Only a commit that waits for the disk, which one that changes nothing does not, is followed by
            # rows that are safe there.
            waited = survives == "power cut" and self._connection.total_changes > changes
            if self._journal is not None and waited and not self._noted:
                self._journal.clear()
            return result

    def _prepare(self, disk: Disk | None) -> None:
        """Set the connection up; with a *disk*, as the one who holds the run."""
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        self._refuse(version, migrates=disk is not None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        if disk is not None:
            self._read_back(disk.journal(self.path.with_name(f"{self.path.name}-noted")), version)
        if version == 0:
            self._run_script("schema.sql", SCHEMA_VERSION)
        elif version < SCHEMA_VERSION:
            self._migrate(version)
        self._connection.execute("PRAGMA foreign_keys = ON")

    def _read_back(self, journal: Journal, version: int) -> None:
        """Make rows of what was noted when the last one who held the run was killed."""
        self._journal = journal
        if version == 0:  # of a store that is not there any more
            journal.clear()
        self._noted = [statement for record in journal.records() for statement in _decode(record)]
        self._make_rows("power cut")

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
    except OSError as error:
        raise StateUnwritable(
            f"{path}: cannot be written: {error.strerror}; free some space or mend permissions"
        ) from error
    except sqlite3.DatabaseError as error:
        # A table or a column that is missing is an operational error to SQLite, like a full disk.
        if isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such "):
            raise StateUnwritable(
                f"{path}: cannot be written: {error}; free some space or mend permissions"
            ) from error
        raise StateError(
            f"{path}: is not a store of this program, or is damaged: {error}; choose another run.name"
        ) from error
