"""What is kept of rollouts, word for word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hud_orchestrator.errors import StateError
from hud_orchestrator.records import Rollout
from hud_orchestrator.store.archive import Archive
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import remote, rollout

HALF_A_CHARACTER = "\ud83d"


async def kept(path: Path, one: Rollout) -> Rollout:
    database = Database(path)
    try:
        await Trajectories(database).keep([one])
        (group,) = await Trajectories(database).unended()
    finally:
        database.close()
    assert Archive(path).named("0.0").rollout == group.rollouts[0]
    return group.rollouts[0]


@pytest.mark.parametrize("one", [rollout(), rollout(tokens=0), rollout(reward=None), remote()])
async def test_a_rollout_comes_back_as_it_was(tmp_path: Path, one: Rollout) -> None:
    assert await kept(tmp_path / "store.db", one) == one


@pytest.mark.parametrize(
    "frame",
    [
        {"score": 1.0, "info": None},
        {"score": 0.5, "said": HALF_A_CHARACTER, "more": ["null", 2**70, {"1": [True]}]},
        {"score": 0.5, "bound": math.inf, "said": HALF_A_CHARACTER},
    ],
)
async def test_a_grade_is_kept_whatever_an_environment_says_in_it(
    tmp_path: Path, frame: Mapping[str, Any]
) -> None:
    assert (await kept(tmp_path / "store.db", replace(rollout(), grade=frame))).grade == frame


async def test_a_grade_that_is_no_number_stays_one(tmp_path: Path) -> None:
    found = await kept(
        tmp_path / "store.db", replace(rollout(), grade={"score": 0.5, "noise": math.inf - math.inf})
    )

    assert found.grade is not None
    assert math.isnan(found.grade["noise"])


async def test_words_that_are_no_whole_characters_are_kept(tmp_path: Path) -> None:
    one = rollout()
    steps = tuple(msgspec.structs.replace(step, content=HALF_A_CHARACTER) for step in one.steps)
    found = await kept(
        tmp_path / "store.db",
        replace(one, steps=steps, answer=f"so {HALF_A_CHARACTER}", detail=HALF_A_CHARACTER),
    )

    assert found.steps == steps
    # Here, SQLite has to be able to tell them too.
    assert (found.answer, found.detail) == ("so ?", "?")


async def test_a_rollout_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await kept(path, rollout())
    database = Database(path)
    await database.write("UPDATE kept_rollouts SET document = '{}'")
    database.close()

    with pytest.raises(StateError, match="cannot be read"):
        Archive(path).named("0.0")
