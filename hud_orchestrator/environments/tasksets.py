"""Tasksets from files: ``.json``, ``.jsonl``, and ``.py`` modules that make rows by calling templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hud_orchestrator.environments.source import SourceMistake, import_file
from hud_orchestrator.environments.template import TaskRow, default_slug
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Task


def load_taskset(path: Path, *, name: str | None = None) -> tuple[Task, ...]:
    """The tasks of a file; *name* picks one module-level list of a ``.py``.

    Raises:
        ConfigError: the file is missing, is no taskset, or has a wrong row.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such taskset file")
    if path.suffix == ".py":
        tasks = tuple(_from_module(path, name))
    elif path.suffix in (".json", ".jsonl"):
        tasks = tuple(_task(row, f"{path}: row {place}") for place, row in _rows(path))
    else:
        raise ConfigError(
            f"{path}: a taskset is a .json, .jsonl or .py file, not {path.suffix or 'without a suffix'}"
        )
    if not tasks:
        raise ConfigError(f"{path}{f':{name}' if name else ''}: has no tasks")
    for task in tasks:
        _refuse_what_cannot_travel(path, task)
    _refuse_twins(path, tasks)
    return tasks


def _from_module(path: Path, name: str | None) -> Iterable[Task]:
    try:
        values = {k: v for k, v in vars(import_file(path)).items() if not k.startswith("_")}
    except SourceMistake as error:
        raise ConfigError(str(error)) from error
    lists = {k: v for k, v in values.items() if _is_rows(v)}
    if name is not None:
        if name not in lists:
            raise ConfigError(
                f"{path}: has no list of tasks called {name!r}; it has {sorted(lists) or 'none'}"
            )
        lists = {name: lists[name]}
    for key in sorted(lists):
        rows = [lists[key]] if isinstance(lists[key], TaskRow) else lists[key]
        yield from (Task(env=r.env, id=r.id, args=r.args, slug=r.slug, columns=r.columns or {}) for r in rows)


def _is_rows(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(row, TaskRow) for row in value)
    return isinstance(value, TaskRow)


def _rows(path: Path) -> Iterable[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = json.loads(text)
            return list(enumerate(found if isinstance(found, list) else [found], start=1))
        return [(n, json.loads(line)) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from error


def _task(row: Any, place: str) -> Task:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{place}: is {type(row).__name__}, expected an object with env and id")
    for key in ("env", "id"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise ConfigError(f"{place}: {key} is {row.get(key)!r}, expected a name")
    args = row.get("args") or {}
    if not isinstance(args, Mapping):
        raise ConfigError(f"{place}: args is {type(args).__name__}, expected an object")
    slug = row.get("slug") or default_slug(row["id"], dict(args))
    return Task(
        env=row["env"], id=row["id"], args=dict(args), slug=str(slug), columns=dict(row.get("columns") or {})
    )


def _refuse_what_cannot_travel(path: Path, task: Task) -> None:
    try:
        json.dumps([task.args, task.columns], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: task {task.slug!r} has an argument that is not JSON: {error}") from error


def _refuse_twins(path: Path, tasks: tuple[Task, ...]) -> None:
    seen: set[str] = set()
    for task in tasks:
        if task.slug in seen:
            raise ConfigError(f"{path}: slug {task.slug!r} names two tasks; give each row a slug of its own")
        seen.add(task.slug)
