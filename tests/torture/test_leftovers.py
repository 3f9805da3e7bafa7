"""What an environment process started, and its temporary files, end with it, wherever it runs."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.spawned import Spawned
from tests.torture.world import CRUEL, Left, cruel, pool


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
