"""Rows that a Python module defines: of our templates, or of HUD's SDK, known by their attributes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hud_orchestrator.environments.source import SourceMistake, import_file
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.tasksets.portable import ROW_KEYS


def module_rows(path: Path, member: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Every row at the module's top level, with its place, by the names of variables; once each.

    *member* picks one variable: a row, a list or tuple of rows, or a taskset of the SDK's.

    Raises:
        ConfigError: the module cannot be imported, or has no such variable.
    """
    try:
        values = {key: value for key, value in vars(import_file(path)).items() if not key.startswith("_")}
    except SourceMistake as error:
        raise ConfigError(str(error)) from error
    found = {key: rows for key in sorted(values) if (rows := _rows_in(values[key])) is not None}
    if member is not None:
        if member not in found:
            raise ConfigError(
                f"{path}: has no list of tasks called {member!r}; it has {', '.join(found) or 'none'}"
            )
        found = {member: found[member]}
    distinct = {id(row): (f"{path}: {key}", row) for key, rows in found.items() for row in rows}
    return [(place, _as_mapping(row)) for place, row in distinct.values()]


def _rows_in(value: Any) -> list[Any] | None:
    """The rows that a variable holds; ``None``: it has nothing to do with tasks."""
    if _is_row(value):
        return [value]
    if isinstance(value, type | ModuleType):
        return None
    # A taskset of the SDK's keeps its tasks by slug.
    tasks = getattr(value, "tasks", None)
    items = list(tasks.values()) if isinstance(tasks, Mapping) else value
    if isinstance(items, list | tuple) and items and all(_is_row(item) for item in items):
        return list(items)
    return None


def _is_row(value: Any) -> bool:
    if isinstance(value, type | ModuleType):
        return False
    named = all(isinstance(getattr(value, key, None), str) for key in ("env", "id", "slug"))
    return named and isinstance(getattr(value, "args", None), Mapping)


def _as_mapping(row: Any) -> dict[str, Any]:
    found = {key: value for key in ROW_KEYS if (value := getattr(row, key, None)) is not None}
    if "verifier" in found:
        found["verifier"] = _as_mapping(found["verifier"])
    asked = found.get("runtime_config")
    if asked is not None and not isinstance(asked, Mapping):
        # The SDK's is a pydantic model, which writes down what was set.
        found["runtime_config"] = asked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return found
