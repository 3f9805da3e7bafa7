"""What guards do over a whole run, and what has to be kept for that."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path

import pytest

from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.rules.guards import GuardRule
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.store import Store
from hud_orchestrator.watch import Watch
from tests.builders import taken

FAR = GuardRule(name="far", metric="loss", below=0.5, action="roll_back", steps=15, cool_down=10, most=3)
OFTEN = GuardRule(name="often", metric="loss", below=0.5, action="roll_back", steps=5, cool_down=2, most=4)
TO_BEST = GuardRule(name="best", metric="loss", below=0.5, action="roll_back", cool_down=7, most=2)


class Run:
    """A run whose service keeps a checkpoint only when it is told to."""

    def __init__(self, store: Store, *rules: GuardRule, well: int) -> None:
        """Its guards have no reason to fire for the first *well* steps."""
        self.store = store
        self.rules = rules
        self.well = well
        self.alive: set[str] = set()
        self.went: list[tuple[int, int]] = []
        """From which step to which."""
        self._numbers = count(1)

    async def watch(self) -> Watch:
        """The guards as another start of the daemon has them."""
        watch = Watch(self.rules, store=self.store, board=Scoreboard(total_steps=99))
        await watch.load()
        return watch

    async def step(self) -> bool:
        """Take a step, and go back if a guard says so; whether the run goes on."""
        watch = await self.watch()
        last = len(await self.store.history.made())
        number, kept = next(self._numbers), await watch.kept()
        made = f"c{number}"
        metrics = {"loss": float(number <= self.well), "reward_mean": float(number == 8)}
        await taken(self.store, last + 1, checkpoint=made, metrics=metrics)
        self.alive = {made, *(self.alive & kept)}
        watch = await self.watch()
        await watch.objects()
        if (asked := await self.store.rollbacks.asked()) is not None:
            assert asked.target.checkpoint in self.alive
            await self.store.rollbacks.done(asked, from_step=last + 1, from_checkpoint=made)
            self.went.append((last + 1, asked.target.step))
        return not watch.paused


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store, None]:
    database = Database(tmp_path / "store.db")
    yield Store.over(database)
    database.close()


@pytest.mark.parametrize(
    "rules",
    [(FAR,), (OFTEN,), (FAR, OFTEN), (TO_BEST, OFTEN)],
    ids=lambda rules: "+".join(r.name for r in rules),
)
async def test_every_rollback_that_guards_have_left_finds_its_checkpoint(
    store: Store, rules: tuple[GuardRule, ...]
) -> None:
    run = Run(store, *rules, well=30)

    while await run.step():
        pass

    assert len(run.went) >= min(rule.most for rule in rules)


async def test_a_guard_that_cannot_go_back_has_not_gone_back(store: Store) -> None:
    rule = GuardRule(name="far", metric="loss", below=0.5, action="roll_back", steps=5, most=1)
    run = Run(store, rule, well=0)

    while await run.step():
        pass

    assert run.went == [(6, 1)]
    assert [one.went_back for one in await store.firings.all()] == [False] * 5 + [True, False]
