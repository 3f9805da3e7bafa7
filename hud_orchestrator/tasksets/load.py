"""From what somebody calls a taskset to its tasks.

tasks = await load("tasks.py:train", where={"difficulty": ["easy", "medium"]}, limit=100)
tasks = await load("my taskset", only=["add-6b1ddef0", "7"])
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hud_orchestrator.adapters.named import named_rows
from hud_orchestrator.clients.tasksets import Tasksets
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.findings import Resolve
from hud_orchestrator.config.sources import NamedSource, named_source
from hud_orchestrator.errors import ConfigError, KeyRefused
from hud_orchestrator.records import Task
from hud_orchestrator.settings import Settings
from hud_orchestrator.tasksets.files import load_path
from hud_orchestrator.tasksets.rows import distinct, task_of
from hud_orchestrator.tasksets.select import select


def from_here(named: str) -> Path:
    """A path relative to the working directory, with ``~`` for the home directory."""
    return Path(os.path.expanduser(named))  # noqa: PTH111  (leaves "~nobody" as it is, where pathlib raises)


async def load(
    source: str | Path,
    *,
    resolve: Resolve = from_here,
    only: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> tuple[Task, ...]:
    """The tasks that *source* names, in its order, or those of them that are asked for.

    Args:
        source: a ``.py``, ``.json`` or ``.jsonl`` file, ``file.py:variable``, a directory of such files, part
            of a task library (``reasoning-gym:chain_sum?size=500``), or the name or id of a taskset of the
            platform that ``HUD_API_URL`` and ``HUD_API_KEY`` name.
        resolve: makes a path of a name; by default relative to the working directory.
        only: slugs, template ids, or positions from 0 on.
        where: by column, a value or a list of the values that a task may have.
        limit: the first so many of what is left at most.

    Raises:
        ConfigError: there is no such taskset, it is empty or has a wrong row, or nothing is left of it.
        ServiceError: the platform cannot be asked.
    """
    named = named_source(str(source), resolve)
    if named.is_path:
        tasks = load_here(named, resolve)
    else:
        tasks = await _of_the_platform(named.name, resolve(named.name))
    return select(tasks, str(source), only=only, where=where, limit=limit)


def load_here(named: NamedSource, resolve: Resolve) -> tuple[Task, ...]:
    """The tasks of a file, a directory or a task library.

    Raises:
        ConfigError: there is no such taskset, it is empty or has a wrong row.
    """
    if named.of_library is None:
        return load_path(resolve(named.name), member=named.member)
    rows = named_rows(named.of_library)
    return distinct((task_of(asdict(row), named.of_library) for row in rows), named.of_library)


async def _of_the_platform(name: str, path: Path) -> tuple[Task, ...]:
    settings = Settings.load()
    if settings.api_key is None:
        raise KeyRefused(
            f"{name}: there is no such file ({path}), and HUD_API_KEY is needed to ask {settings.api_url} "
            "for a taskset of that name; mend the path, or set the key"
        )
    async with Transport(settings.api_url, settings.api_key) as transport:
        tasksets = Tasksets(transport)
        found = await tasksets.find(name)
        if found is None:
            raise ConfigError(
                f"{name}: there is no such file ({path}), and {tasksets.url} has no taskset of that name; "
                "mend it, or upload one with hud-orchestrate tasksets push"
            )
        records = (await tasksets.export(found.taskset_id)).tasks
    if not records:
        raise ConfigError(
            f"{name}: {tasksets.url} has no tasks for taskset {found.taskset_id}: it is empty, or not there; "
            "fill it with hud-orchestrate tasksets push"
        )
    rows = (
        task_of(_row(record), f"{name}: task {position}") for position, record in enumerate(records, start=1)
    )
    return distinct(rows, name)


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """An exported record as a row: the platform calls a template a scenario, and a slug a name."""
    return {**record, "id": record.get("scenario"), "slug": record.get("name")}
