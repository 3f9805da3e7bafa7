from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.errors import (
    OutcomeUnknown,
    RequestRejected,
    ServiceUnreachable,
    StateError,
    StateUnwritable,
)
from hud_orchestrator.records import Ending, StepState
from hud_orchestrator.rules.rollback import Target
from hud_orchestrator.rules.steps import NEXT
from hud_orchestrator.store import disk as disk_module
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import CallKind, Ledger
from hud_orchestrator.store.rollbacks import Rollbacks
from hud_orchestrator.store.store import Store
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import called, group, taken


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


async def plan(
    ledger: Ledger, number: int = 1, *, groups: tuple[int, ...] = (), head: str | None = None
) -> int:
    return await ledger.plan(
        number, groups=groups, digest="d", head_before=head, learning_rate=1e-3, metrics={"reward_mean": 0.5}
    )


def seen_from_outside(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_the_row_is_on_disk_before_the_call_leaves_and_has_no_ending(
    ledger: Ledger, tmp_path: Path
) -> None:
    step = await plan(ledger)
    async with ledger.one_shot("forward_backward", plan=step) as call:
        rows = seen_from_outside(tmp_path / "store.db", "SELECT id, kind, ending FROM calls")

    assert rows == [(call.id, "forward_backward", None)]
    assert seen_from_outside(tmp_path / "store.db", "SELECT ending FROM calls") == [("confirmed",)]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (RequestRejected("422", status=422), "rejected"),
        (ServiceUnreachable("no connection"), "not_sent"),
        (OutcomeUnknown("no answer"), None),
        (RuntimeError("anything else"), None),
    ],
)
async def test_only_proof_ends_a_call(
    ledger: Ledger, tmp_path: Path, error: Exception, ending: str | None
) -> None:
    step = await plan(ledger)
    with pytest.raises(type(error)):
        async with ledger.one_shot("forward_backward", plan=step):
            raise error

    assert seen_from_outside(tmp_path / "store.db", "SELECT ending FROM calls") == [(ending,)]


@pytest.mark.parametrize("first", [OutcomeUnknown("lost"), None])
async def test_a_second_optim_step_of_one_step_is_refused_by_the_store(
    ledger: Ledger, first: Exception | None
) -> None:
    step = await plan(ledger)
    await called(ledger, step, "forward_backward")
    try:
        async with ledger.one_shot("optim_step", plan=step):
            if first is not None:
                raise first
    except OutcomeUnknown:
        pass

    with pytest.raises(sqlite3.IntegrityError):
        async with ledger.one_shot("optim_step", plan=step):
            raise AssertionError("the body must not run")


@pytest.mark.parametrize("first", [OutcomeUnknown("lost"), RequestRejected("409", status=409)])
async def test_a_call_on_top_of_one_that_failed_is_refused_by_the_store(
    ledger: Ledger, first: Exception
) -> None:
    step = await plan(ledger)
    with pytest.raises(type(first)):
        async with ledger.one_shot("forward_backward", plan=step):
            raise first

    with pytest.raises(sqlite3.IntegrityError, match="on top of one that failed"):
        async with ledger.one_shot("forward_backward", plan=step):
            raise AssertionError("the body must not run")


async def test_a_call_of_which_nothing_was_sent_is_no_fence(ledger: Ledger) -> None:
    step = await plan(ledger)
    with pytest.raises(ServiceUnreachable):
        async with ledger.one_shot("forward_backward", plan=step):
            raise ServiceUnreachable("no connection")
    for kind in ("forward_backward", "optim_step"):
        async with ledger.one_shot(kind, plan=step):
            pass

    open_step = await ledger.open_step()
    assert open_step is not None
    assert open_step.called == {"forward_backward", "optim_step"}


async def test_what_is_over_ends_once_and_is_not_called_for_again(ledger: Ledger, database: Database) -> None:
    await Trajectories(database).add(group(0), ending=None)
    first = await plan(ledger, groups=(0,))
    await ledger.abandoned(first, detail="lost")
    second = await plan(ledger, groups=(0,))
    await called(ledger, second)
    await ledger.applied(second, checkpoint="c1", metrics={}, trained=[0])

    with pytest.raises(sqlite3.IntegrityError, match="a step"):
        await ledger.applied(first, checkpoint="c2", metrics={}, trained=[])
    with pytest.raises(sqlite3.IntegrityError, match="a step ends once"):
        await ledger.abandoned(second, detail="lost")
    with pytest.raises(sqlite3.IntegrityError, match="a group ends once"):
        await database.write("UPDATE groups SET ending = 'failed' WHERE number = 0")
    with pytest.raises(sqlite3.IntegrityError, match="a call of a step that is over"):
        async with ledger.one_shot("forward_backward", plan=first):
            raise AssertionError("the body must not run")
    assert await ledger.checkpoints() == {"c1"}


async def test_the_ledger_says_what_its_steps_made_and_saw_and_on_which_heads_they_were_called_for(
    ledger: Ledger,
) -> None:
    lost = await plan(ledger)
    await called(ledger, lost)
    await ledger.abandoned(lost, detail="lost", strays=["theirs"])
    first = await plan(ledger)
    await called(ledger, first)
    await ledger.applied(first, checkpoint="c1", metrics={}, trained=[])
    await plan(ledger, 2, head="c1")  # and not called

    assert await ledger.checkpoints() == {"c1", "theirs"}
    assert await ledger.checkpoints(strays=False) == {"c1"}
    assert await ledger.stood_on([None, "c1", "theirs"]) == {None}
    assert await ledger.stood_on(["c1"]) == set()


async def test_who_is_cancelled_leaves_no_row_of_a_call_that_was_never_sent(
    ledger: Ledger, tmp_path: Path
) -> None:
    step = await plan(ledger)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with ledger.one_shot("optim_step", plan=step):
            raise AssertionError("the body must not run")

    assert seen_from_outside(tmp_path / "store.db", "SELECT ending FROM calls") == []


async def test_only_one_step_can_be_in_hand_and_only_once(ledger: Ledger) -> None:
    first = await plan(ledger)
    for number in (1, 2):
        with pytest.raises(sqlite3.IntegrityError):
            await plan(ledger, number)
    await ledger.abandoned(first, detail="not applied")

    assert await plan(ledger) != first


async def test_two_steps_cannot_claim_one_checkpoint(database: Database) -> None:
    store = Store.over(database)
    for number in (1, 2):
        await taken(store, number, checkpoint=f"c{number}")

    with pytest.raises(sqlite3.IntegrityError):
        await taken(store, 3, checkpoint="c1")


async def test_an_applied_step_ends_its_groups_in_the_same_transaction(
    database: Database, ledger: Ledger
) -> None:
    trajectories, history = Trajectories(database), History(database)
    for number in range(3):
        await trajectories.add(group(number), ending=None)
    await taken(Store.over(database), 1, checkpoint="c1", groups=(0, 2))

    assert await trajectories.ended() == {0, 2}
    assert [g.number for g in await trajectories.unended()] == [1]
    assert [(s.number, s.checkpoint, s.metrics) for s in await history.steps()] == [
        (1, "c1", {"reward_mean": 0.5})
    ]
    assert await ledger.open_step() is None


async def test_a_killed_daemon_leaves_an_open_step_that_says_what_was_called(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db")
    ledger = Ledger(database)
    step = await plan(ledger, 1, groups=(7,))
    with pytest.raises(OutcomeUnknown):
        async with ledger.one_shot("forward_backward", plan=step):
            raise OutcomeUnknown("lost")
    database.close()

    reopened = Database(tmp_path / "store.db")
    found = await Ledger(reopened).open_step()
    assert found is not None
    assert (found.number, found.called) == (1, frozenset({"forward_backward"}))
    assert (found.groups, found.checkpoint) == ((7,), None)
    assert found.metrics == {"reward_mean": 0.5}
    reopened.close()


async def test_rollouts_come_back_from_disk_as_they_were(database: Database) -> None:
    trajectories = Trajectories(database)
    whole = group(5, rewards=(0.25, 1.0), version=3)
    await trajectories.add(whole, ending=None)

    assert await trajectories.unended() == [whole]
    await trajectories.end(5, ending=Ending.STALE, step=2)
    assert await trajectories.unended() == []
    assert await trajectories.outcomes() == {"finished": 2}


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(StateError, match="not a store"):
        Database(path)


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (n)")
    before = path.read_bytes()

    with pytest.raises(StateError, match="another program"):
        Database(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


async def test_a_store_that_misses_a_table_is_damaged_and_its_disk_is_not_full(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE calls")

    with closing(Database(path)) as database, pytest.raises(StateError, match="damaged: no such table"):
        await Ledger(database).optim_steps()


async def test_a_store_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    database = Database(path)
    for number in range(50):
        await Trajectories(database).add(group(number), ending=None)
    database.close()
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 8 * 4096))

    with pytest.raises(StateError, match="damaged"), closing(Database(path)) as database:
        await Trajectories(database).unended()


def test_a_store_of_a_later_program_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path / "store.db").close()
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StateError, match="version 99"):
        Database(tmp_path / "store.db")


def test_a_directory_that_is_missing_is_an_unwritable_state(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritable, match="cannot be written"):
        Database(tmp_path / "nowhere" / "store.db")


async def test_commits_are_left_to_threads_for_a_while_after_one_that_took_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def where() -> int:
        return await database.transaction(lambda _: threading.get_ident())

    here = threading.get_ident()
    assert await where() == here
    with monkeypatch.context() as patch:
        patch.setattr(disk_module, "SLOW_S", -1.0)
        assert await where() == here
    monkeypatch.setattr(disk_module, "SLOW_S", 60.0)

    assert here not in [await where() for _ in range(disk_module.LEFT_TO_THREADS)]
    assert await where() == here


OVER = {
    StepState.APPLIED: "UPDATE steps SET state = 'applied', checkpoint = 'c1', ended_at = ''",
    StepState.SKIPPED: "UPDATE steps SET state = 'skipped', ended_at = ''",
    StepState.ABANDONED: "UPDATE steps SET state = 'abandoned', ended_at = ''",
    StepState.ROLLED_BACK: "UPDATE steps SET state = 'rolled_back', rollback = 1, ended_at = ''",
    StepState.PLANNED: "UPDATE steps SET state = 'planned', rollback = NULL, ended_at = NULL",
}
"""What makes a step that was called for one of that state."""

WAY = {
    StepState.PLANNED: (),
    StepState.ROLLED_BACK: (StepState.SKIPPED, StepState.ROLLED_BACK),
    **{state: (state,) for state in (StepState.APPLIED, StepState.SKIPPED, StepState.ABANDONED)},
}


@pytest.fixture
async def rows_of_a_step(database: Database, ledger: Ledger) -> AsyncGenerator[sqlite3.Connection, None]:
    """Behind the back of the ledger: step 1 in hand, with all its calls confirmed, and a wish to go back."""
    await Trajectories(database).add(group(0), ending=None)
    await called(ledger, await plan(ledger, groups=(0,)))
    await Rollbacks(database).ask(Target(step=0, checkpoint="c0"), reason="because")
    connection = sqlite3.connect(database.path, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("after", StepState)
@pytest.mark.parametrize("before", StepState)
async def test_a_step_becomes_what_the_rules_say_and_the_store_refuses_the_rest(
    rows_of_a_step: sqlite3.Connection, before: StepState, after: StepState
) -> None:
    for state in WAY[before]:
        rows_of_a_step.execute(OVER[state])

    may = after in NEXT[before]
    with nullcontext() if may else pytest.raises(sqlite3.IntegrityError):
        rows_of_a_step.execute(OVER[after])

    (state,) = rows_of_a_step.execute("SELECT state FROM steps").fetchone()
    assert state == (after if may else before)


STEP = "INSERT {} INTO steps (number, groups, digest, learning_rate, head_before, planned_at) VALUES ({})"
APPLIED = OVER[StepState.APPLIED]


@pytest.mark.parametrize(
    "statements",
    [
        ["INSERT INTO steps (number, state, groups, digest, learning_rate, planned_at, ended_at)"
         " VALUES (1, 'skipped', '[]', 'd', 1, '', '')"],
        [STEP.format("OR REPLACE", "1, '[]', 'd', 1, NULL, ''")],
        [APPLIED, STEP.format("OR REPLACE", "1, '[]', 'd', 1, 'c1', ''")],
        [APPLIED, STEP.format("", "3, '[]', 'd', 1, 'c1', ''")],
        [APPLIED, STEP.format("", "2, '[]', 'd', 1, 'another', ''")],
        ["UPDATE steps SET groups = '[1]'"],
        ["UPDATE steps SET head_before = 'another'"],
        [APPLIED, "UPDATE steps SET checkpoint = 'another'"],
        ["UPDATE steps SET state = 'skipped', checkpoint = 'c1', ended_at = ''"],
        ["UPDATE calls SET step = 2"],
        ["UPDATE calls SET detail = 'another' WHERE kind = 'optim_step'"],
        ["INSERT INTO calls (id, step, kind, sent_at) VALUES ('x', 1, 'forward_backward', '')"],
        ["DELETE FROM calls"],
        [APPLIED, "DELETE FROM groups"],
        ["UPDATE groups SET ending = 'trained', step = 1"],
        ["UPDATE groups SET ending = 'trained'"],
        [APPLIED, "UPDATE groups SET ending = 'trained', step = 1", "UPDATE groups SET step = 2"],
        ["UPDATE rollbacks SET state = 'refused', ended_at = ''",
         "UPDATE rollbacks SET state = 'asked', ended_at = NULL"],
        [APPLIED, "UPDATE rollbacks SET state = 'refused', ended_at = ''", OVER[StepState.ROLLED_BACK]],
    ],
)  # fmt: skip
async def test_what_must_never_be_is_refused_whatever_asks_for_it(
    rows_of_a_step: sqlite3.Connection, statements: list[str]
) -> None:
    *before, last = statements
    for statement in before:
        rows_of_a_step.execute(statement)

    with pytest.raises(sqlite3.IntegrityError):
        rows_of_a_step.execute(last)


@pytest.mark.parametrize("kinds", [(), ("forward",)])
async def test_a_step_steps_on_a_gradient_and_is_applied_by_the_call_that_does(
    ledger: Ledger, kinds: tuple[CallKind, ...]
) -> None:
    step = await plan(ledger)
    for kind in kinds:
        await called(ledger, step, kind)

    with pytest.raises(sqlite3.IntegrityError, match="on a gradient"):
        await called(ledger, step, "optim_step")
    with pytest.raises(sqlite3.IntegrityError, match="without an optim_step"):
        await ledger.applied(step, checkpoint="c1", metrics={}, trained=())
