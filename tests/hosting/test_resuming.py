"""A run that goes on trains by the trace ids that the service still knows, and by no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.records import Group, Policy
from hud_orchestrator.resume import Standing, without_forgotten
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import Model
from tests.builders import group, remote
from tests.hosting.conftest import Platform


@pytest.fixture
async def trajectories(tmp_path: Path) -> AsyncIterator[Trajectories]:
    database = Database(tmp_path / "store.db")
    yield Trajectories(database)
    database.close()


async def test_groups_whose_traces_are_forgotten_are_over_and_the_others_wait(
    hosting: dict[str, str], platform: Platform, trajectories: Trajectories
) -> None:
    known = await platform.submit()
    await platform.ended(known)
    trained_here = group(1)
    remembered = Group(number=2, rollouts=(replace(remote(2, 0), trace_id=known),))
    half = Group(
        number=3, rollouts=(replace(remote(3, 0), trace_id=known), replace(remote(3, 1), trace_id="f" * 32))
    )
    for one in (trained_here, remembered, half):
        await trajectories.add(one, ending=None)
    before = Standing(
        model=Model(id="m", model_name="m"),
        policy=Policy(version=4, checkpoint="c"),
        versions={},
        ended=frozenset({0}),
        waiting=(trained_here, remembered, half),
    )

    async with Transport(hosting["HUD_API_URL"], SecretStr(hosting["HUD_API_KEY"])) as api:
        after = await without_forgotten(before, HostedRollouts(api), trajectories)

    assert after.waiting == (trained_here, remembered)
    assert after.ended == {0, 3}
    assert await trajectories.ended() == {3}
    assert await trajectories.unended() == [trained_here, remembered]
