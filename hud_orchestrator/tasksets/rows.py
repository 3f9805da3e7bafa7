"""The task that one row of a taskset is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hud_orchestrator.environments.template import default_slug
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Task

RUNTIME_KEYS = frozenset({"image", "compose", "resources", "limits"})
"""What a row may ask of its machine."""


def task_of(row: Any, place: str) -> Task:
    """The task that *row* is; *place* begins the text about what is wrong with it.

    Keys that are not known are ignored.

    Raises:
        ConfigError: the row is wrong.
    """
    task = _task(row, place)
    verifier = row.get("verifier")
    if verifier is None:
        return task
    checked = _task(verifier, f"{place}: verifier")
    if verifier.get("verifier") is not None:
        raise ConfigError(f"{place}: verifier: has a verifier of its own; one is all that is taken")
    return Task(**{**_fields(task), "verifier": checked})


def distinct(tasks: Iterable[Task], place: str) -> tuple[Task, ...]:
    """*tasks*, of which no two have the same slug.

    Raises:
        ConfigError: two do.
    """
    by_slug: dict[str, Task] = {}
    for task in tasks:
        other = by_slug.setdefault(task.slug, task)
        if other is not task:
            raise ConfigError(
                f"{place}: slug {task.slug!r} names two tasks, {other.env}/{other.id} and "
                f"{task.env}/{task.id}; give each row a slug of its own"
            )
    return tuple(by_slug.values())


def common_taskset(tasks: Iterable[Task]) -> str | None:
    """The id of the platform's taskset that all of *tasks* come from, ``None`` when there is no such one."""
    found = {task.taskset_id for task in tasks}
    return found.pop() if len(found) == 1 else None


def _task(row: Any, place: str) -> Task:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{place}: is {_kind(row)}, expected an object with env and id")
    env, template = _name(row, "env", place), _name(row, "id", place)
    args = _object(row, "args", place) or {}
    task = Task(
        env=env,
        id=template,
        args=args,
        slug=default_slug(template, args) if row.get("slug") is None else _name(row, "slug", place),
        columns=_object(row, "columns", place) or {},
        agent_timeout_s=_timeout(row, place),
        runtime_config=_runtime(row, place),
    )
    try:
        json.dumps([task.args, task.columns, task.runtime_config], allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: task {task.slug!r} has a value that is not JSON: {error}") from error
    return task


def _fields(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__}


def _name(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{place}: {key} is {_kind(value)}, expected a name")
    return value


def _object(row: Mapping[str, Any], key: str, place: str) -> dict[str, Any] | None:
    value = row.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{place}: {key} is {_kind(value)}, expected an object")
    return None if value is None else dict(value)


def _timeout(row: Mapping[str, Any], place: str) -> float | None:
    given = (_object(row, "agent_config", place) or {}).get("timeout_seconds")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ConfigError(
            f"{place}: agent_config.timeout_seconds is {_kind(given)}, expected a number of seconds above 0"
        )
    return float(given)


def _runtime(row: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    asked = _object(row, "runtime_config", place)
    for key in sorted((asked or {}).keys() - RUNTIME_KEYS):
        raise ConfigError(
            f"{place}: runtime_config has no key {key!r}; it has {', '.join(sorted(RUNTIME_KEYS))}"
        )
    if asked and asked.get("image") is not None and asked.get("compose") is not None:
        raise ConfigError(f"{place}: runtime_config names an image and a compose file; keep one of them")
    return asked


def _kind(value: Any) -> str:
    """A value in a message: short, and by its type when it is large."""
    if value is None:
        return "missing"
    return (
        repr(value)
        if isinstance(value, bool | int | float | str) and len(repr(value)) <= 60
        else ("an object" if isinstance(value, Mapping) else type(value).__name__)
    )
