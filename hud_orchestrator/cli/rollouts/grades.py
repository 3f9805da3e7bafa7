"""A grade frame, whole: its score, its subscores as a table, and whatever else is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hud_orchestrator.cli.rollouts.words import visible

_SHOWN_APART = frozenset({"score", "content", "subscores"})
_AS_ALWAYS: dict[str, Any] = {"done": True, "isError": False, "info": {}}


def grade_lines(grade: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The grade, line by line."""
    yield Text(f"score {_number(grade.get('score'))}", style="bold")
    if grade.get("content"):
        yield Text(visible(str(grade["content"])))
    rest = {
        key: value
        for key, value in grade.items()
        if key not in _SHOWN_APART and value not in (None, _AS_ALWAYS.get(key))
    }
    for key, value in rest.items():
        yield Text.assemble((f"{visible(key)}: ", "bold"), visible(json.dumps(value, ensure_ascii=False)))
    subscores = grade.get("subscores")
    if isinstance(subscores, list) and subscores:
        yield _table(subscores)


def _table(subscores: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Subscore", overflow="fold")
    table.add_column("Weight", justify="right", no_wrap=True)
    table.add_column("Value", justify="right", no_wrap=True)
    table.add_column("Info", overflow="fold")
    for depth, one in _flat(subscores, 0):
        info = one.get("info")
        table.add_row(
            visible("  " * depth + str(one.get("name"))),
            _number(one.get("weight", 1.0)),
            _number(one.get("value")),
            "" if info is None else visible(json.dumps(info, ensure_ascii=False)),
        )
    return table


def _flat(subscores: list[Any], depth: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every subscore with its depth, children below their parents."""
    for one in subscores:
        if isinstance(one, Mapping):
            yield depth, one
            yield from _flat(one.get("children") or [], depth + 1)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)
