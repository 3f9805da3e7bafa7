"""The last lines of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hud_orchestrator.cli.ending import next_command, show_ending
from hud_orchestrator.config.load import load
from hud_orchestrator.errors import ExitCode
from hud_orchestrator.records import Target
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.store import Store
from hud_orchestrator.summary import summarize

Shell = Callable[..., object]


async def test_a_rollback_that_came_too_late_for_the_run_is_told(
    hud_orchestrate: Shell, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hud_orchestrate("init", "run.yaml")
    loaded = load(work / "run.yaml", overrides=["run.steps=3"])
    database = Database(work / "store.db")
    store = Store.over(database)
    before = await summarize(loaded.run, store, exit_code=ExitCode.DONE, error=None)
    await store.rollbacks.ask(Target(step=2, checkpoint="c2"), reason="asked for")
    after = await summarize(loaded.run, store, exit_code=ExitCode.DONE, error=None)
    database.close()

    assert "serve" in next_command(loaded, before)
    assert next_command(loaded, after).endswith("run.yaml --set run.steps=3")
    show_ending(loaded, after)
    assert "to step 2 is asked for; run it again to go back" in capsys.readouterr().out


async def test_fewer_steps_than_there_are_already_are_told_as_they_are(
    hud_orchestrate: Shell, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hud_orchestrate("init", "run.yaml")
    loaded = load(work / "run.yaml", overrides=["run.steps=4", "service=hud"])
    database = Database(work / "store.db")
    found = await summarize(loaded.run, Store.over(database), exit_code=ExitCode.DONE, error=None)
    database.close()

    show_ending(loaded, replace(found, steps=8))

    assert "8 in 0 s, and no more: 4 are asked for" in capsys.readouterr().out
    assert next_command(loaded, replace(found, steps=8)).endswith("--set run.steps=16")
