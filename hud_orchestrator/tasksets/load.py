"""From what somebody calls a taskset to its tasks.

tasks = await load("tasks.py:train", where={"difficulty": ["easy", "medium"]}, limit=100)
tasks = await load("my taskset", only=["add-6b1ddef0", "7"])
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
from hud_orchestrator.tasksets.files import rows_at
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
    tasks = [task for task, _ in await load_rows(source, resolve=resolve)]
    return select(tasks, str(source), only=only, where=where, limit=limit)


async def load_rows(
    source: str | Path, *, resolve: Resolve = from_here
) -> list[tuple[Task, Mapping[str, Any]]]:
    """The tasks that *source* names, each with its row: that may say more, and can be written again.

    Raises:
        ConfigError, ServiceError: as for :func:`load`.
    """
    named = named_source(str(source), resolve)
    taskset_id: str | None = None
    if named.is_path:
        rows = _rows_here(named, resolve)
    else:
        taskset_id, rows = await _of_the_platform(named.name, resolve(named.name))
    tasks = [replace(task_of(row, place), taskset_id=taskset_id) for place, row in rows]
    distinct(tasks, str(source))
    return list(zip(tasks, (row for _, row in rows), strict=True))


def load_here(named: NamedSource, resolve: Resolve) -> tuple[Task, ...]:
    """The tasks of a file, a directory or a task library.

    Raises:
        ConfigError: there is no such taskset, it is empty or has a wrong row.
    """
    rows = _rows_here(named, resolve)
    return distinct((task_of(row, place) for place, row in rows), named.of_library or named.name)


def _rows_here(named: NamedSource, resolve: Resolve) -> list[tuple[str, Any]]:
    if named.of_library is None:
        return rows_at(resolve(named.name), member=named.member)
    return [(named.of_library, asdict(row)) for row in named_rows(named.of_library)]


async def _of_the_platform(name: str, path: Path) -> tuple[str, list[tuple[str, Any]]]:
    """The id of the taskset, and its rows, each with its place."""
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
    rows = [(f"{name}: task {position}", _row(record)) for position, record in enumerate(records, start=1)]
    return found.taskset_id, rows


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """An exported record as a row: the platform calls a template a scenario, and a slug a name."""
    return {**record, "id": record.get("scenario"), "slug": record.get("name")}
