"""Drive a task of an adapter as the daemon does, with replies that are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.template import TaskRow
from hud_orchestrator.records import Task


def task(row: TaskRow) -> Task:
    return Task(env=row.env, id=row.id, args=row.args, slug=row.slug)


async def played(source: str | None, row: TaskRow, *replies: str) -> tuple[list[str], dict[str, Any]]:
    """What the environment said, turn for turn, and its grade."""
    assert source is not None
    heard: list[str] = []
    async with InProcess(Path(source), teardown_s=1).episode(task(row)) as episode:
        messages: Any = episode.prompt
        for reply in replies:
            heard.append(messages[0]["content"])
            messages = await episode.turn(reply)
            if messages is None:
                break
        else:
            heard.append(messages[0]["content"])
        return heard, dict(await episode.grade(None))
