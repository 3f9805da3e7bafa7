"""What a start does with the groups that the last end has cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.records import Policy
from hud_orchestrator.resume import Standing, without_stale
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import Model
from tests.builders import group, rollout


@pytest.fixture
def trajectories(tmp_path: Path) -> Iterator[Trajectories]:
    database = Database(tmp_path / "store.db")
    yield Trajectories(database)
    database.close()


async def test_a_group_that_would_be_too_old_when_it_is_whole_is_not_finished(
    trajectories: Trajectories,
) -> None:
    await trajectories.add(group(0, version=1), ending=None)
    await trajectories.keep([rollout(1, version=2), rollout(2, version=3)])
    whole, old, fresh = await trajectories.unended()
    before = Standing(
        model=Model(id="m", model_name="m"), policy=Policy(version=4, checkpoint="c"), versions={},
        ended=frozenset(), waiting=(whole,), begun=(old, fresh),
    )  # fmt: skip

    after = await without_stale(before, trajectories, staleness=1)

    assert (after.begun, after.ended) == ((fresh,), {1})
    # A whole one is left to the sweep of the batch that it would stand in.
    assert after.waiting == (whole,)
    assert await trajectories.ended() == {1}
