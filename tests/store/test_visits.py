"""What the groups of consumed steps say about their tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.records import Ending, Group, Visit
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.ledger import Ledger
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import rollout


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


def attempts(number: int, *rewards: float | None) -> Group:
    return Group(number=number, rollouts=tuple(rollout(number, i, reward=r) for i, r in enumerate(rewards)))


async def test_a_group_counts_for_the_step_that_it_ended_in_and_not_before(database: Database) -> None:
    trajectories, ledger = Trajectories(database), Ledger(database)
    await trajectories.add(attempts(0, 1.0, 0.0), ending=None)
    await trajectories.add(attempts(1, 1.0, 1.0), ending=Ending.NO_SPREAD, step=1)
    await trajectories.add(attempts(2, None, 0.5), ending=Ending.FAILED, step=1)
    await trajectories.add(attempts(3, None, None), ending=Ending.FAILED, step=2)
    plan = await ledger.plan(
        1, groups=[0], digest="d", head_before=None, learning_rate=1e-3, metrics={"reward_mean": 0.5}
    )
    before = await trajectories.visits(last=1)
    await ledger.applied(plan, checkpoint="c", metrics={}, trained=[0])

    assert [visit.rewards for visit in before] == [(1.0, 1.0), (0.5,)]
    assert await trajectories.visits(last=1) == [
        Visit(slug="add-1", rewards=rewards) for rewards in ((1.0, 0.0), (1.0, 1.0), (0.5,))
    ]
    assert await trajectories.visits(first=2, last=2) == [Visit(slug="add-1", rewards=())]
    assert await trajectories.visits(last=0) == []
