"""An episode of the arithmetic example in the daemon, and in a warm process of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import anyio

from benchmarks.measure import Row, cpu_ms
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.tasksets.files import load_path

SOURCE = Path(__file__).parents[1] / "examples" / "arithmetic" / "tasks.py"
AT_ONCE = 8
TIMES = 2000


def placements() -> list[Row]:
    """Measure the daemon's share; the process's own time is not counted."""
    with Path(os.devnull).open("wb") as log_file:
        return anyio.run(_measured, log_file, backend_options={"use_uvloop": True})


async def _measured(log_file: IO[bytes]) -> list[Row]:
    async with ProcessPool(SOURCE, log_file=log_file, recycle_after=TIMES, teardown_s=2) as pool:
        return [
            Row(what="episode in process", cpu_ms=await _episodes(InProcess(SOURCE, teardown_s=2))),
            Row(what="episode in a warm process", cpu_ms=await _episodes(pool)),
        ]


async def _episodes(placement: Placement) -> float:
    (task, *_) = load_path(SOURCE, member="train")

    async def work() -> None:
        async with placement.episode(task) as episode:
            await episode.grade("42")

    return await cpu_ms(work, times=TIMES, at_once=AT_ONCE)
