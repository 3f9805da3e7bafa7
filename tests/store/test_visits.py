"""What the groups of consumed steps say about their tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.records import Ending, Group, Visit
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.store import Store
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import rollout, taken


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


def attempts(number: int, *rewards: float | None) -> Group:
    return Group(number=number, rollouts=tuple(rollout(number, i, reward=r) for i, r in enumerate(rewards)))


async def test_a_group_counts_for_the_step_that_it_ended_in_and_not_before(database: Database) -> None:
    trajectories = Trajectories(database)
    await trajectories.add(attempts(0, 1.0, 0.0), ending=None)
    await trajectories.add(attempts(1, 1.0, 1.0), ending=Ending.NO_SPREAD, step=1)
    await trajectories.add(attempts(2, None, 0.5), ending=Ending.FAILED, step=1)
    await trajectories.add(attempts(3, None, None), ending=Ending.FAILED, step=2)
    before = await trajectories.visits(last=1)
    await taken(Store.over(database), 1, checkpoint="c", groups=[0])

    assert [visit.rewards for visit in before] == [(1.0, 1.0), (0.5,)]
    assert await trajectories.visits(last=1) == [
        Visit(slug="add-1", rewards=rewards) for rewards in ((1.0, 0.0), (1.0, 1.0), (0.5,))
    ]
    assert await trajectories.visits(first=2, last=2) == [Visit(slug="add-1", rewards=())]
    assert await trajectories.visits(last=0) == []
