"""Choose some tasks of a taskset: by columns, by slugs, ids and positions, by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hud_orchestrator.config.document import Unreadable
from hud_orchestrator.config.reading import read_document
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Task

SHOWN = 8
"""Values of one column, and slugs, that a message names."""


def select(
    tasks: Sequence[Task],
    place: str,
    *,
    only: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> tuple[Task, ...]:
    """Those of *tasks* that are asked for, in their order; every one of them when nothing is asked.

    Args:
        tasks: of one taskset.
        place: begins the text of an error.
        only: slugs, ids of templates, or positions from 0 on.
        where: by column, the value that a task has to have, or a list of the values it may have.
        limit: no more than the first so many of what is left.

    Raises:
        ConfigError: there is no task of a name in *only*, or none that *where* lets through.
    """
    chosen = tuple(tasks) if not only else _named(tasks, only, place)
    kept = tuple(task for task in chosen if _matches(task, where or {}))
    if not kept:
        raise ConfigError(f"{place}: {_nothing(chosen, where or {})}")
    return kept[:limit]


def ids_of(text: str | None) -> tuple[str, ...]:
    """``--task-ids``: names with commas between them."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def where_of(pairs: Iterable[str]) -> dict[str, Any]:
    """``--where``: every ``column=value``, the value as in a run file: ``3``, ``true``, ``[easy, medium]``.

    Raises:
        ConfigError: one is none.
    """
    where: dict[str, Any] = {}
    for pair in pairs:
        column, equals, text = pair.partition("=")
        try:
            value = read_document(text).data
        except Unreadable as error:
            raise ConfigError(f"--where {pair}: {error.mistake.text}") from None
        if not equals or not column or value is None or isinstance(value, dict):
            raise ConfigError(f"--where {pair}: write it as column=value, or column=[one, other]")
        where[column] = value
    return where


def _named(tasks: Sequence[Task], only: Sequence[str], place: str) -> tuple[Task, ...]:
    wanted = set(only)
    known = [{task.slug, task.id, str(position)} for position, task in enumerate(tasks)]
    for name in sorted(wanted - set().union(*known)):
        close = get_close_matches(name, [task.slug for task in tasks], n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"it has {_some([t.slug for t in tasks])}"
        raise ConfigError(
            f"{place}: has no task {name!r} by slug, id or position (0 to {len(tasks) - 1}); {advice}"
        )
    return tuple(task for task, names in zip(tasks, known, strict=True) if names & wanted)


def _matches(task: Task, where: Mapping[str, Any]) -> bool:
    return all(
        column in task.columns and any(_same(task.columns[column], value) for value in _values(asked))
        for column, asked in where.items()
    )


def _values(asked: Any) -> Sequence[Any]:
    return asked if isinstance(asked, list | tuple) else [asked]


def _same(has: Any, asked: Any) -> bool:
    # To Python, True is 1.
    return bool(has == asked) and isinstance(has, bool) == isinstance(asked, bool)


def _nothing(tasks: Sequence[Task], where: Mapping[str, Any]) -> str:
    """Why no task is left, and what there is to choose from."""
    columns: dict[str, list[str]] = {}
    for task in tasks:
        for column, value in task.columns.items():
            columns.setdefault(column, []).append(_written(value))
    there = "; ".join(f"{column}: {_some(values)}" for column, values in sorted(columns.items()))
    asked = " and ".join(
        f"{column} {' or '.join(map(_written, _values(value)))}" for column, value in where.items()
    )
    return f"none of its {len(tasks)} tasks has {asked}; its columns are {there or 'none'}"


def _some(values: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(values))
    more = [f"and {len(distinct) - SHOWN} more"] if len(distinct) > SHOWN else []
    return ", ".join([*distinct[:SHOWN], *more])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
