"""What is kept of rollouts between the moment that they are graded and the moment that they are rows."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from zlib import crc32

import anyio
import pytest

from hud_orchestrator.errors import StateError, StateUnwritable
from hud_orchestrator.records import Ending
from hud_orchestrator.store.database import NOTED_BYTES, Database
from hud_orchestrator.store.journal import FRAME, Journal, Statement
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import group
from tests.simulation.clock import Clock, VirtualLoop

COUNT = "SELECT count(*) FROM kept_rollouts"


def outside(path: Path, sql: str = COUNT) -> list[tuple[object, ...]]:
    """What somebody sees who opens the file meanwhile."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def as_it_lies(directory: Path, to: Path, change: Callable[[bytes], bytes] = lambda noted: noted) -> Path:
    """A copy of the files, as a kill would leave them; *change* is what became of the journal."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(directory, to)
    journal = to / "store.db-noted"
    journal.write_bytes(change(journal.read_bytes()))
    return to / "store.db"


async def unended(path: Path) -> list[int]:
    """Numbers of the groups that the next one who holds the run finds."""
    with closing(Database(path)) as database:
        return [one.number for one in await Trajectories(database).unended()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


async def test_what_is_kept_is_found_after_a_kill_although_it_is_no_row_yet(
    run: Path, tmp_path: Path
) -> None:
    with closing(Database(run / "store.db")) as database:
        trajectories = Trajectories(database)
        await trajectories.keep(group(1).rollouts[:1])
        await trajectories.add(group(2), ending=None)
        await trajectories.add(group(3), ending=Ending.NO_SPREAD, step=1)

        assert outside(run / "store.db") == [(0,)]
        copy = as_it_lies(run, tmp_path / "copy")
        with closing(Database(copy)) as found:
            kept = await Trajectories(found).unended()
            ended = await Trajectories(found).ended()
        assert [one.rollouts for one in kept] == [group(1).rollouts[:1], group(2).rollouts]
        assert ended == {3}
    assert outside(run / "store.db") == outside(copy)
    assert not (run / "store.db-noted").exists()


async def test_a_record_that_a_power_cut_has_torn_is_dropped_and_those_before_it_are_not(
    run: Path, tmp_path: Path
) -> None:
    with closing(Database(run / "store.db")) as database:
        for number in range(4):
            await Trajectories(database).add(group(number), ending=None)
        whole = (run / "store.db-noted").read_bytes()
        record = FRAME.size + FRAME.unpack_from(whole)[0]
        rng = Random(0)
        for size in (0, record, 2 * record, *(rng.randrange(len(whole)) for _ in range(20))):
            copy = as_it_lies(run, tmp_path / "cut", lambda noted, size=size: noted[:size])  # type: ignore[misc]
            assert await unended(copy) == list(range(size // record))
            # Blocks that were never written are read as zeros.
            zeros = as_it_lies(
                run,
                tmp_path / "zeros",
                lambda noted, size=size: noted[:size].ljust(len(noted), b"\0"),  # type: ignore[misc]
            )
            assert await unended(zeros) == list(range(size // record))


async def test_what_comes_after_a_torn_record_was_read_back_is_found_too(run: Path, tmp_path: Path) -> None:
    with closing(Database(run / "store.db")) as database:
        await Trajectories(database).add(group(1), ending=None)
        torn = as_it_lies(run, tmp_path / "torn", lambda noted: noted[:-1])
    with closing(Database(torn)) as database:
        await Trajectories(database).add(group(3), ending=None)
        assert await unended(as_it_lies(torn.parent, tmp_path / "copy")) == [3]


async def test_records_that_come_back_after_they_have_become_rows_change_nothing(
    run: Path, tmp_path: Path
) -> None:
    with closing(Database(run / "store.db")) as database:
        trajectories = Trajectories(database)
        await trajectories.add(group(1), ending=None)
        await trajectories.add(group(2), ending=Ending.NO_SPREAD, step=1)
        noted = (run / "store.db-noted").read_bytes()
        await trajectories.end(1, ending=Ending.STALE, step=4)
        assert await trajectories.ended() == {1, 2}
        before = outside(run / "store.db", "SELECT * FROM groups ORDER BY number")

        copy = as_it_lies(run, tmp_path / "copy", lambda _: noted)
        assert await unended(copy) == []
        assert outside(copy, "SELECT * FROM groups ORDER BY number") == before


async def test_much_becomes_rows_without_waiting_for_anything_else(run: Path) -> None:
    with closing(Database(run / "store.db")) as database:
        number = 0
        while outside(run / "store.db") == [(0,)]:
            number += 1
            await Trajectories(database).add(group(number), ending=None)
            assert (run / "store.db-noted").stat().st_size < NOTED_BYTES
        assert (run / "store.db-noted").stat().st_size == 0
        assert number > 10


def test_what_is_noted_is_seen_from_outside_within_seconds(run: Path) -> None:
    loop = VirtualLoop(Clock())

    async def main() -> None:
        with closing(Database(run / "store.db")) as database:
            trajectories = Trajectories(database)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(trajectories.keep_up)
                for number in range(3):
                    await trajectories.add(group(number), ending=None)
                    assert outside(run / "store.db") == [(2 * number,)]
                    await anyio.sleep(2)  # of the loop's own, virtual time
                    assert outside(run / "store.db") == [(2 * number + 2,)]
                await trajectories.add(group(3), ending=None)
                database.lull()
                await anyio.sleep(0.1)
                assert outside(run / "store.db") == [(8,)]
                tasks.cancel_scope.cancel()

    loop.run_until_complete(main())
    loop.close()


async def test_who_does_not_hold_the_run_leaves_the_journal_alone(run: Path) -> None:
    with closing(Database(run / "store.db")) as database:
        await Trajectories(database).add(group(1), ending=None)
        noted = (run / "store.db-noted").read_bytes()

        with closing(Database(run / "store.db", holds=False)) as other:
            assert await Trajectories(other).unended() == []
        assert (run / "store.db-noted").read_bytes() == noted
        assert await Trajectories(database).unended() == [group(1)]


async def test_a_disk_without_room_for_a_record_is_told_and_costs_no_other_record(
    run: Path, tmp_path: Path
) -> None:
    with closing(Database(run / "store.db")) as database:
        trajectories = Trajectories(database)
        await trajectories.add(group(1), ending=None)
        size = (run / "store.db-noted").stat().st_size

        with (
            files_of(size + 100),
            pytest.raises(StateUnwritable, match="db-noted: cannot be written: File too large"),
        ):
            await trajectories.add(group(2), ending=None)

        assert await unended(as_it_lies(run, tmp_path / "copy")) == [1]
        await trajectories.add(group(3), ending=None)
        assert await unended(as_it_lies(run, tmp_path / "copy")) == [1, 3]


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """No file grows beyond *size* bytes: what does not fit is not written, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_journal_is_read_back_whole(tmp_path: Path) -> None:
    rng = Random(1)
    statements: list[Statement] = [
        (f"SQL {number}", [(rng.random(), None, "x" * rng.choice((0, 100, 70_000)))] * rng.randrange(3))
        for number in range(50)
    ]
    with closing(Journal(tmp_path / "journal")) as journal:
        for at in range(0, 50, 5):
            journal.note(statements[at : at + 5])
        assert journal.waiting == statements
    with closing(Journal(tmp_path / "journal")) as journal:
        journal.read_back()
        assert journal.waiting == statements
        journal.clear()
        assert journal.waiting == []
    assert list(tmp_path.iterdir()) == []


async def test_the_journal_is_cleared_when_the_disk_has_its_rows_and_not_before(run: Path) -> None:
    log, journal = run / "store.db-wal", run / "store.db-noted"
    with closing(Database(run / "store.db")) as database:
        trajectories = Trajectories(database)
        await trajectories.add(group(1), ending=None)
        noted = journal.read_bytes()
        await trajectories.ended()  # which makes rows, and does not wait for the disk
        assert journal.read_bytes() == noted
        killed = as_it_lies(run, run.parent / "copy")
        size = log.stat().st_size
        # A commit that changes nothing would not wait either, and nor would one of rows that are there.
        await database.write("UPDATE meta SET value = 'other' WHERE key = 'unheard of'")
        assert journal.stat().st_size == 0
        assert log.stat().st_size > size
    copied = killed.with_name("store.db-wal")
    size = copied.stat().st_size
    with closing(Database(killed)):
        assert killed.with_name("store.db-noted").stat().st_size == 0
        assert copied.stat().st_size > size


async def test_a_journal_that_is_of_something_else_is_named_and_left_as_it_is(run: Path) -> None:
    journal = run / "store.db-noted"
    Database(run / "store.db").close()
    with closing(Journal(journal)) as noting:
        noting.note([("INSERT INTO kept_rollouts (group_number) VALUES (?)", [(1,)])])
    of_another_store = as_it_lies(run, run.parent / "other")
    record = b"of another program"
    for path, content, told in (
        (run / "store.db", FRAME.pack(len(record), crc32(record)) + record, "is not of this program"),
        (of_another_store, None, "is not of this store: NOT NULL"),
    ):
        noted = path.with_name("store.db-noted")
        if content is not None:
            noted.write_bytes(content)
        before = noted.read_bytes()
        with pytest.raises(StateError, match=f"store.db-noted: {told}.*move it away to go on without it"):
            Database(path)
        assert noted.read_bytes() == before
    journal.unlink()
    journal.mkdir()
    with pytest.raises(StateUnwritable, match=r"store.db-noted: cannot be written: Is a directory"):
        Database(run / "store.db")


async def test_a_store_that_is_missing_takes_nothing_with_it_that_is_noted(run: Path, tmp_path: Path) -> None:
    with closing(Database(run / "store.db")) as database:
        await Trajectories(database).add(group(1), ending=None)
        copy = as_it_lies(run, tmp_path / "copy")
    taken = [copy.with_name(name).rename(tmp_path / name) for name in ("store.db", "store.db-wal")]

    with pytest.raises(StateError, match=r"store\.db: is missing or empty, and store\.db-noted is of a run"):
        Database(copy)
    for path in taken:
        path.rename(copy.with_name(path.name))

    assert await unended(copy) == [1]
