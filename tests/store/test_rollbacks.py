"""Going back, in the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hud_orchestrator.errors import OutcomeUnknown
from hud_orchestrator.records import Ending, Target
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.firings import Firing
from hud_orchestrator.store.history import Evaluation
from hud_orchestrator.store.store import Store
from tests.builders import called, group, planned, remote, taken


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store.over(database)


async def sampled(store: Store, number: int, *, version: int) -> None:
    await store.trajectories.add(group(number, version=version), ending=None)


async def measured(store: Store, version: int, reward: float) -> None:
    await store.history.add_evaluation(
        Evaluation(
            version=version, checkpoint=None, reward=reward, graded=1, attempted=1, seconds=1.0, tasks={}
        )
    )


async def gone_back(store: Store, step: int) -> int:
    asked = await store.rollbacks.ask(Target(step=step, checkpoint=f"c{step}"), reason="because")
    return await store.rollbacks.done(asked, from_step=3, from_checkpoint="c3")


async def test_the_history_is_cut_and_what_was_trained_stays_trained(
    store: Store, database: Database
) -> None:
    for number in (1, 2, 3):
        await sampled(store, number, version=number - 1)
        await taken(store, number, checkpoint=f"c{number}", groups=(number,))
        await measured(store, number, number / 10)
    await store.trajectories.add(group(4, version=1), ending=None)
    await store.trajectories.add(group(5, version=2), ending=None)

    assert await gone_back(store, 1) == 1

    assert [(step.number, step.taken) for step in await store.history.steps()] == [(1, 1)]
    assert await store.history.taken() == 3
    assert [one.version for one in await store.history.evaluations()] == [1]
    assert await store.trajectories.ended() == {1, 2, 3, 5}
    assert [one.number for one in await store.trajectories.unended()] == [4]
    endings = await database.read("SELECT number, ending FROM groups ORDER BY number")
    assert [row["ending"] for row in endings] == ["trained", "trained", "trained", None, "rolled_back"]
    # The tree has them, and so they are explained.
    assert await store.ledger.checkpoints() == {"c1", "c2", "c3"}
    assert await store.rollbacks.abandoned() == {"c2", "c3"}
    assert await store.rollbacks.asked() is None


async def test_a_version_is_taken_and_measured_again_and_counts_on(store: Store) -> None:
    for number in (1, 2, 3):
        await sampled(store, number, version=number - 1)
        await taken(store, number, checkpoint=f"c{number}", groups=(number,))
    await measured(store, 2, 0.25)
    await gone_back(store, 1)
    await sampled(store, 9, version=1)
    await taken(store, 2, checkpoint="d2", groups=(9,))
    await measured(store, 2, 0.75)

    assert [(s.number, s.checkpoint, s.taken) for s in await store.history.steps()] == [
        (1, "c1", 1), (2, "d2", 4),
    ]  # fmt: skip
    assert [one.reward for one in await store.history.evaluations()] == [0.75]
    # The curriculum hears of the new line alone.
    assert len(await store.trajectories.visits(last=9)) == 2


async def test_what_was_sampled_elsewhere_may_be_of_any_policy_since(store: Store) -> None:
    for number in (1, 2, 3):
        await taken(store, number, checkpoint=f"c{number}")
    whole = group(7)
    await store.trajectories.add(
        type(whole)(number=7, rollouts=(remote(7, 0, version=1), remote(7, 1, version=1))), ending=None
    )

    assert await gone_back(store, 2) == 1
    assert await store.trajectories.unended() == []


async def test_what_was_sampled_before_its_policy_was_published_is_of_that_policy(store: Store) -> None:
    for number in (1, 2, 3):
        await taken(store, number, checkpoint=f"c{number}")
    for number, served in ((7, "c3"), (8, "c2"), (9, None)):
        whole = group(number, version=2)
        members = [
            replace(one, samples=(msgspec.structs.replace(one.samples[0], unpublished=served),))
            for one in whole.rollouts
        ]
        await store.trajectories.add(replace(whole, rollouts=tuple(members)), ending=None)

    assert await gone_back(store, 2) == 1
    assert [one.number for one in await store.trajectories.unended()] == [8, 9]


async def test_a_lost_step_is_a_rival_also_when_the_run_has_gone_back_from_it(store: Store) -> None:
    async def lost(number: int) -> int:
        plan = await planned(store, number)
        await called(store.ledger, plan, "forward_backward")
        with pytest.raises(OutcomeUnknown):
            async with store.ledger.one_shot("optim_step", plan=plan):
                raise OutcomeUnknown("no answer")
        return plan

    await taken(store, 1, checkpoint="c1")
    await store.ledger.skipped(await lost(2), metrics={}, groups=(), ending=Ending.LOST)
    await gone_back(store, 1)
    await lost(2)

    step = await store.ledger.open_step()
    assert step is not None
    assert step.has_rivals


async def test_a_checkpoint_of_an_abandoned_step_is_never_another_steps(store: Store) -> None:
    for number in (1, 2, 3):
        await taken(store, number, checkpoint=f"c{number}")
    await gone_back(store, 1)

    with pytest.raises(sqlite3.IntegrityError):
        await taken(store, 2, checkpoint="c3")


async def test_one_rollback_is_asked_for_at_a_time(store: Store) -> None:
    first = await store.rollbacks.ask(Target(step=2, checkpoint="c2"), reason="a guard")

    assert await store.rollbacks.ask(Target(step=1, checkpoint="c1"), reason="a person") == first
    await store.rollbacks.refused(first, detail="pruned")
    assert await store.rollbacks.asked() is None


async def test_a_guard_fires_once_for_a_step_and_asks_in_the_same_transaction(store: Store) -> None:
    firing = Firing(guard="fall", step=3, taken=3, action="roll_back", detail="fell", scale=0.5)
    await store.firings.fire([(firing, Target(step=1, checkpoint="c1"))])
    asked = await store.rollbacks.asked()
    assert asked is not None
    await store.rollbacks.refused(asked, detail="pruned")

    with pytest.raises(sqlite3.IntegrityError):
        await store.firings.fire([(firing, Target(step=1, checkpoint="c1"))])

    assert await store.firings.all() == [firing]
    assert await store.rollbacks.asked() is None
    assert await store.firings.pauses() == []


async def test_a_pause_is_open_until_the_run_has_ended_for_it(store: Store) -> None:
    firing = Firing(guard="fall", step=3, taken=3, action="pause", detail="fell", scale=1.0)
    await store.firings.fire([(firing, None)])

    assert await store.firings.pauses() == [firing]
    await store.firings.heed()
    assert await store.firings.pauses() == []


def test_a_store_that_was_brought_up_to_date_is_like_a_new_one(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db")
    old.executescript((Path(__file__).parent / "v1.sql").read_text())
    old.close()

    def shape(name: str) -> dict[str, object]:
        Database(tmp_path / name).close()
        connection = sqlite3.connect(tmp_path / name)
        try:
            tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            indexes = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index'"
            ).fetchall()
            return {
                **{t: sorted(r[1:] for r in connection.execute(f"PRAGMA table_info({t})")) for t in tables},
                "indexes": {one: sql and " ".join(sql.split()) for one, sql in indexes},
            }
        finally:
            connection.close()

    assert shape("old.db") == shape("new.db")


def test_endings_are_those_of_the_schema(database: Database, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    for number, ending in enumerate(Ending):
        if ending is not Ending.TRAINED:  # which takes a step, too
            connection.execute("INSERT INTO groups (number, task, size) VALUES (?, '{}', 1)", (number,))
            connection.execute("UPDATE groups SET ending = ? WHERE number = ?", (ending, number))
    connection.close()
