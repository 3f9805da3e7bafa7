"""The SQLite file of a run: a piece of work at a time, and commits that are on disk before they return.

What may be lost in a power cut without harm does not wait for the disk, unless the write-ahead log is long
and has to be folded into the file: it survives the end of the process, and reaches the disk with the next
commit that does wait, as all of them go to one file in their order.

What comes by the dozen and is not looked at before long is noted in a journal beside the file, which survives
the end of the process too, and becomes rows at the beginning of the next piece of work that may have to do
with it, or when the daemon waits for something else anyway.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio

from hud_orchestrator.errors import OrchestratorError, StateError, StateUnwritable
from hud_orchestrator.store.disk import Disk, RealDisk
from hud_orchestrator.store.journal import Journal, Statement
from hud_orchestrator.store.versions import SCHEMA_VERSION, bring_up_to_date, version_of

T = TypeVar("T")

Survives = Literal["power cut", "kill"]
"""The worst that a commit which has returned is not lost by."""

_SYNCHRONOUS: dict[Survives, str] = {"power cut": "FULL", "kill": "NORMAL"}

NOTED_BYTES = 2**20
"""Of the journal, when what is noted becomes rows at once."""

ROWS_AFTER_S = 1.0
"""Seconds that what is noted may be missing for who looks at the file from outside."""

LULL_S = 0.01
"""Seconds from the beginning of a lull until rows are made in it: what it waits for goes first."""


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
        self._version = 0
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
        if self._waiting:
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
        try:
            # What cannot be written now, the next one who holds the run finds in the journal.
            with suppress(OrchestratorError):
                if self._journal is not None and self._journal.size:
                    self._transact(lambda _: None, "power cut")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._connection.close()
        if self._journal is not None:
            self._journal.close()

    def _note(self, statements: Sequence[Statement]) -> None:
        assert self._journal is not None, "only who holds a run notes something"
        with _explained(self.path):
            self._journal.note(statements)
            if self._journal.size >= NOTED_BYTES:
                self._make_rows("power cut")

    @property
    def _waiting(self) -> Sequence[Statement]:
        """What is noted and no row yet."""
        return self._journal.waiting if self._journal is not None else ()

    def _make_rows(self, survives: Survives = "kill") -> None:
        if self._waiting:
            self._transact(lambda _: None, survives)

    def _looked(self, work: Callable[[sqlite3.Connection], T], *, apart: bool) -> T:
        with _explained(self.path):
            if not apart:
                self._make_rows()
            return work(self._connection)

    def _transact(
        self, work: Callable[[sqlite3.Connection], T], survives: Survives, *, apart: bool = False
    ) -> T:
        journal, syncs = self._journal, survives == "power cut"
        waiting = () if apart else self._waiting
        with _explained(self.path):
            if survives != self._survives:
                self._connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[survives]}")
                self._survives = survives
            if journal is not None and syncs and apart and journal.waiting:
                journal.sync()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in waiting:
                    rows(self._connection, *statement)
                result = work(self._connection)
                # Once the disk has all of it as rows. A commit that changes nothing would not wait for that.
                clears = journal is not None and syncs and journal.size and len(waiting) == len(self._waiting)
                if clears:
                    self._connection.execute(f"PRAGMA user_version = {self._version}")
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has done it itself when it ran out of room.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            if journal is not None and not apart:
                journal.waiting.clear()
            if journal is not None and clears:
                journal.clear()
            return result

    def _prepare(self, disk: Disk | None) -> None:
        """Set the connection up; with a *disk*, as the one who holds the run."""
        self._version = version_of(self._connection, self.path, migrates=disk is not None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if disk is not None:
            self._journal = disk.journal(self.path.with_name(f"{self.path.name}-noted"))
            self._read_back(self._journal)
        bring_up_to_date(self._connection, self.path, self._version)
        self._version = SCHEMA_VERSION

    def _read_back(self, journal: Journal) -> None:
        """Make rows of what was noted when the last one who held the run was killed."""
        if self._version == 0 and journal.size:
            raise StateError(
                f"{self.path}: is missing or empty, and {journal.path.name} is of a run that was begun here; "
                "put it back, or use --fresh to set the directory aside and begin anew"
            )
        journal.read_back()
        try:
            self._make_rows("power cut")
        except (sqlite3.IntegrityError, OverflowError) as error:
            raise StateError(
                f"{journal.path}: is not of this store: {error}; move it away to go on without it"
            ) from error


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
        place, why = error.filename or path, error.strerror
        raise StateUnwritable(
            f"{place}: cannot be written: {why}; free some space or mend permissions"
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
