"""Where every value of a run file came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hud_orchestrator.config.document import Document
from hud_orchestrator.config.fields import leaves
from hud_orchestrator.config.mistakes import COMMAND_LINE, KeyPath
from hud_orchestrator.config.run import RunFile


def origins(document: Document, file: str) -> dict[str, str]:
    """Say ``file:line``, ``--set`` or ``default`` for every key, and every entry of a mapping."""
    found: dict[str, str] = {}
    for key, _ in leaves(RunFile):
        path: KeyPath = tuple(key.split("."))
        found[key] = _origin(document, path, file)
        given = value_at(document.data, path)
        for entry in given if isinstance(given, Mapping) else ():
            found[f"{key}.{entry}"] = _origin(document, (*path, entry), file)
    return found


def value_at(data: Any, path: KeyPath) -> Any:
    """Return what was written at *path*, or ``None``."""
    for part in path:
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _origin(document: Document, path: KeyPath, file: str) -> str:
    place = document.keys.get(path)
    if place is None:
        return "default"
    return "--set" if place == COMMAND_LINE else f"{file}:{place.line}"
