"""``run --fresh`` on a directory that holds something."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.cli.fresh import begin_anew
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.errors import ConfigError, StateInUse
from hud_orchestrator.store.database import Database

Shell = Callable[..., "subprocess.CompletedProcess[str]"]

HELD = "--fresh would set aside a run of 2 steps and 5 rollouts"


@pytest.fixture
def held(hud_orchestrate: Shell, work: Path) -> Path:
    """The directory of a run that has taken two steps, where its run file is."""
    assert hud_orchestrate("init", "run.yaml").returncode == 0
    config = (work / "run.yaml").read_text()
    name = next(line.split(":")[1].split("#")[0].strip() for line in config.splitlines() if "name:" in line)
    directory = work / "runs" / name
    directory.mkdir(parents=True)
    connection = sqlite3.connect(directory / "store.db")
    connection.executescript((Path(__file__).parents[1] / "store" / "v2.sql").read_text())
    connection.close()
    Database(directory / "store.db").close()
    return directory


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.parent.rglob("*"))


def test_it_is_refused_without_yes_and_says_what_would_go(hud_orchestrate: Shell, held: Path) -> None:
    before = files(held)

    refused = hud_orchestrate("run", "run.yaml", "--fresh")

    assert refused.returncode == 2
    assert HELD in refused.stderr
    assert "add --yes" in refused.stderr
    assert files(held) == before


def test_it_is_asked_where_somebody_can_answer(held: Path, work: Path) -> None:
    terminal, ours = pty.openpty()
    before = files(held)
    os.write(terminal, b"n\n")
    try:
        refused = subprocess.run(
            [sys.executable, "-m", "hud_orchestrator", "run", "run.yaml", "--fresh"],
            cwd=work, stdin=ours, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(terminal)

    assert refused.returncode == 2
    assert f"{HELD}: go on? [y/N]" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert files(held) == before


def test_with_yes_the_earlier_run_is_kept_beside(held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin_anew(RunDirectory(held), yes=True)

    assert not held.exists()
    (kept,) = held.parent.iterdir()
    assert (kept / "store.db").exists()
    assert str(kept) in capsys.readouterr().err


def test_a_run_without_steps_and_rollouts_is_nothing_to_ask_about(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    begin_anew(directory, yes=False)
    directory.path.mkdir()
    begin_anew(directory, yes=False)
    directory.path.mkdir()
    Database(directory.store).close()
    begin_anew(directory, yes=False)

    assert not directory.path.exists()


def test_what_is_of_no_run_is_not_moved_without_a_word(hud_orchestrate: Shell, work: Path) -> None:
    assert hud_orchestrate("init", "run.yaml").returncode == 0
    (work / "mine").mkdir()
    (work / "mine" / "photo.jpg").touch()

    refused = hud_orchestrate("run", "run.yaml", "--fresh", "--set", "run.state_dir=mine")

    assert refused.returncode == 2
    assert "mine: --fresh would set aside files without a run's store; add --yes, or choose" in refused.stderr
    assert (work / "mine" / "photo.jpg").exists()


def test_where_one_works_nothing_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="cannot be set aside while you work in it"):
        begin_anew(RunDirectory(Path()), yes=True)

    assert tmp_path.exists()


def test_a_store_that_cannot_be_read_may_hold_anything(hud_orchestrate: Shell, held: Path) -> None:
    (held / "store.db").write_bytes(b"no database" * 1000)

    refused = hud_orchestrate("run", "run.yaml", "--fresh")

    assert refused.returncode == 2
    assert "a run whose store cannot be read" in refused.stderr


@pytest.mark.parametrize("yes", [True, False])
def test_a_run_that_goes_on_is_never_set_aside(held: Path, yes: bool) -> None:
    with RunDirectory(held).held(), pytest.raises(StateInUse):
        begin_anew(RunDirectory(held), yes=yes)

    assert (held / "store.db").exists()
