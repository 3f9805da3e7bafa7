"""Import a loss of the user's by ``package.module:function``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from hud_orchestrator.config.spelling import suggestion


def import_loss(path: str) -> Callable[..., Any]:
    """The function that *path* names.

    Args:
        path: ``package.module:function``. The module is found as by ``import``: in the environment, or
            on ``sys.path``.

    Raises:
        ValueError: the text has another form, there is no such module or attribute, importing raised,
            or what was found cannot be called with ``(data, logprobs)``.
    """
    module_name, _, attribute = path.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f'loss "{path}" must have the form package.module:function')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # Anything may happen in somebody else's module.
        raise ValueError(f'loss "{path}": {_why(module_name, error)}') from error
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    if not hasattr(module, attribute):
        raise ValueError(f'loss "{path}": {module_name} has no "{attribute}"{suggestion(attribute, names)}')
    found: Any = getattr(module, attribute)
    if not callable(found) or inspect.isclass(found):
        raise ValueError(f'loss "{path}": must be a function, got {type(found).__name__}')
    if inspect.iscoroutinefunction(found):
        raise ValueError(f'loss "{path}": must be a plain function, got an async one')
    return found  # type: ignore[no-any-return]


def _why(module_name: str, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module_name == missing or module_name.startswith(f"{missing}.")):
        return f'there is no module "{missing}"; is its directory on PYTHONPATH?'
    return f"importing {module_name} raised {type(error).__name__}: {error}"


def settings_of(path: str, function: Callable[..., Any]) -> dict[str, Any] | None:
    """The keywords that *function* takes beside ``(data, logprobs)``, with their defaults.

    Returns:
        By name; ``inspect.Parameter.empty`` where there is no default. ``None``: it takes any.

    Raises:
        ValueError: it cannot be called with two positional arguments.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Written in C, without a signature: only calling it tells.
        return None
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    any_positional = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(positional) < 2 and not any_positional:
        raise ValueError(f'loss "{path}": must take (data, logprobs), takes {inspect.signature(function)}')
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    later = [one for one in positional[2:] if one.kind is not one.POSITIONAL_ONLY]
    keywords = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    return {one.name: one.default for one in (*later, *keywords)}
