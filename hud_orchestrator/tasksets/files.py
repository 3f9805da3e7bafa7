"""A taskset on disk: a ``.py`` module, a ``.json`` or ``.jsonl`` file, or a directory of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hud_orchestrator.config.sources import TASKSET_SUFFIXES
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Task
from hud_orchestrator.tasksets.modules import module_rows
from hud_orchestrator.tasksets.rows import distinct, task_of

SCAFFOLDING = frozenset({"conftest", "setup", "__init__", "__main__"})
"""Modules of a directory that hold no tasks."""

BLANK = object()
"""A line without a row."""


def load_path(path: Path, *, member: str | None = None) -> tuple[Task, ...]:
    """The tasks of a file, or of every file in a directory by name; *member* picks one list of a ``.py``.

    Raises:
        ConfigError: it is missing, is no taskset, or has a wrong row.
    """
    rows = rows_at(path, member=member)
    return distinct((task_of(row, place) for place, row in rows), str(path))


def rows_at(path: Path, *, member: str | None = None) -> list[tuple[str, Any]]:
    """The rows of those tasks as they are written, each with its place.

    Raises:
        ConfigError: it is missing, or is no taskset.
    """
    files = _files_in(path) if path.is_dir() else [path]
    rows = [row for file in files for row in _rows(file, member)]
    if not rows:
        raise ConfigError(f"{path}{f':{member}' if member else ''}: has no tasks")
    return rows


def _files_in(directory: Path) -> list[Path]:
    files = [
        file
        for file in sorted(directory.iterdir())
        if file.suffix in TASKSET_SUFFIXES and file.stem not in SCAFFOLDING and not file.name.startswith(".")
    ]
    if not files:
        raise ConfigError(f"{directory}: has no .py, .json or .jsonl file with tasks")
    return files


def _rows(path: Path, member: str | None) -> Iterable[tuple[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such taskset file")
    if path.suffix == ".py":
        return module_rows(path, member)
    if path.suffix in (".json", ".jsonl"):
        return _data(path)
    raise ConfigError(
        f"{path}: a taskset is a .json, .jsonl or .py file, not {path.suffix or 'without a suffix'}"
    )


def _data(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else [*map(_line, text.splitlines())]
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from error
    rows = found if isinstance(found, list) else [found]
    return [(f"{path}: row {place}", row) for place, row in enumerate(rows, start=1) if row is not BLANK]


def _line(line: str) -> Any:
    return json.loads(line) if line.strip() else BLANK
