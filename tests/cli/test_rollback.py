"""``rollback``: what it writes down, and what it says when there is nothing to go back to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.records import Target
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.store import Store
from tests.builders import taken

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
async def run(tmp_path: Path) -> Path:
    """A run of three steps, the second of which was sampled from the best policy."""
    database = Database(tmp_path / "store.db")
    store = Store.over(database)
    for number, reward in enumerate((0.25, 0.75, 0.5), 1):
        await taken(store, number, checkpoint=f"abcd{number}", metrics={"reward_mean": reward})
    database.close()
    return tmp_path


async def asked(run: Path) -> Target | None:
    database = Database(run / "store.db")
    rollback = await Store.over(database).rollbacks.asked()
    database.close()
    return rollback.target if rollback else None


@pytest.mark.parametrize(("where", "step"), [(["--best"], 1), (["--steps", "1"], 2), (["--to", "ABCD1"], 1)])
async def test_it_writes_down_where_to_go_back_to(
    hud_orchestrate: Shell, run: Path, where: list[str], step: int
) -> None:
    done = hud_orchestrate("rollback", str(run), *where)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"goes back to step {step}, checkpoint abcd{step}" in done.stdout
    assert "the next hud-orchestrate run does it before anything else" in done.stdout
    assert await asked(run) == Target(step=step, checkpoint=f"abcd{step}")


async def test_who_asks_while_somebody_has_the_run_is_told_who_does_it(
    hud_orchestrate: Shell, run: Path
) -> None:

    with RunDirectory(run).held():
        done = hud_orchestrate("rollback", str(run), "--steps", "2")

    assert f"process {os.getpid()} does it when the step in hand is over" in done.stdout


@pytest.mark.parametrize(
    ("where", "code", "more"), [(["--to", "abcd1"], 0, ""), (["--steps", "1"], 2, ", and not to step 2")]
)
async def test_a_second_wish_is_the_first_one_or_is_refused_until_that_is_done(
    hud_orchestrate: Shell, run: Path, where: list[str], code: int, more: str
) -> None:
    hud_orchestrate("rollback", str(run), "--steps", "2")
    done = hud_orchestrate("rollback", str(run), *where)

    assert done.returncode == code
    assert f"is to go back to step 1, checkpoint abcd1 already{more}" in done.stdout + done.stderr
    assert await asked(run) == Target(step=1, checkpoint="abcd1")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ([], "give one of --to ID, --best and --steps N"),
        (["--best", "--steps", "1"], "give one of --to ID, --best and --steps N"),
        (["--steps", "3"], "the fork began without one"),
        (["--steps", "4"], "allowed: 0 to 2"),
        (["--to", "abcd"], "3 checkpoints of this run begin so"),
        (["--to", "abcd3"], "is the head already"),
        (["--to", "abc"], "give at least 4 characters of an id"),
    ],
)
async def test_what_cannot_be_is_one_line_and_changes_nothing(
    hud_orchestrate: Shell, run: Path, where: list[str], why: str
) -> None:
    done = hud_orchestrate("rollback", str(run), *where)

    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert await asked(run) is None


def test_a_run_that_is_not_there_is_named(hud_orchestrate: Shell) -> None:
    done = hud_orchestrate("rollback", "nowhere", "--best")

    assert done.returncode == 2
    assert "there is no run 'nowhere'" in done.stderr
