"""What an adapter gives, and how it finds its library. Standard library only."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from hud_orchestrator.environments.template import Environment, TaskRow


class Adapted(NamedTuple):
    """An environment, tasks to train on, and others that are kept for evaluation."""

    env: Environment
    train: list[TaskRow]
    heldout: list[TaskRow]


def library(module: str, *, extra: str) -> Any:
    """Import a task library.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}; pip install 'hud-orchestrator[{extra}]'", name=error.name
        ) from None


def frozen(value: Any) -> Any:
    """*value* for JSON, with tuples told from lists; :func:`thawed` gives it back."""
    if isinstance(value, tuple):
        return {TUPLE: [frozen(item) for item in value]}
    if isinstance(value, list):
        return [frozen(item) for item in value]
    if isinstance(value, dict):
        return {str(key): frozen(item) for key, item in value.items()}
    return value


def thawed(value: Any) -> Any:
    """What was :func:`frozen`."""
    if isinstance(value, list):
        return [thawed(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {TUPLE}:
            return tuple(thawed(item) for item in value[TUPLE])
        return {key: thawed(item) for key, item in value.items()}
    return value


TUPLE = "(tuple)"
