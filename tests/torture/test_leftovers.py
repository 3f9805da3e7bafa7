"""What an environment process started, and its temporary files, end with it, wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.environments.leftovers import sweep
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.errors import EnvironmentClosed
from tests.torture.world import CRUEL, Left, cruel, pool, processes_in


@pytest.mark.parametrize("kind", ["local", "subprocess"])
async def test_a_process_in_a_session_of_its_own_ends_with_the_environment_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    async with AsyncExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        placement: Placement = await stack.enter_async_context(pool(tmp_path / "pool"))
        if kind == "subprocess":
            pace = Pace(ready_s=60, teardown_s=1)
            placement = Spawned(CRUEL, command=None, log_file=log, pace=pace)
        started: frozenset[str] = frozenset()
        # It hangs with its child, so only its end can be waited for.
        with anyio.fail_after(90):
            async with placement.episode(cruel(at="turn", how="session")) as episode:
                with anyio.move_on_after(3):
                    await episode.turn("x")
                started = Left.now(temporary).processes

    assert any("time.sleep" in one for one in started)
    assert (Left.now(temporary).processes, Left.now(temporary).files) == (frozenset(), frozenset())


KILLED = """
import os, subprocess, sys, tempfile
from hud_orchestrator.environments.leftovers import OwnDirectory

tempfile.tempdir = sys.argv[1]
directory = OwnDirectory()
surroundings = {**os.environ, "TMPDIR": str(directory.path)}
command = [sys.executable, "-c", "import time; time.sleep(10**6)"]
subprocess.Popen(command, start_new_session=True, env=surroundings)
print(directory.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_daemon_left_is_cleared_by_the_next_and_what_a_live_one_has_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        directory = Path(daemon.stdout.readline().strip())
        for old in (False, True):
            if old:
                os.utime(directory, (0, 0))
            sweep()
            assert directory.is_dir()
            assert len(processes_in(tmp_path)) == 1
        daemon.kill()

    sweep()

    assert (processes_in(tmp_path), list(tmp_path.iterdir())) == (frozenset(), [])


@pytest.mark.parametrize("at", ["start", "turn", "grade"])
async def test_an_environment_that_died_is_lost_at_once_though_a_child_of_it_holds_the_connection_open(
    tmp_path: Path, at: str
) -> None:
    async def attempt(placement: Placement) -> None:
        async with placement.episode(cruel(at=at, how="fork")) as episode:
            await episode.turn("x")
            await episode.grade("x")

    async with pool(tmp_path / "log") as processes:
        # Nothing else ends it: there is no deadline here.
        with anyio.fail_after(60), pytest.raises(EnvironmentClosed):
            await attempt(processes)
