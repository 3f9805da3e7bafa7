"""A function's parameters as a JSON schema. Standard library only."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of an object with one property per parameter.

    Raises:
        TypeError: an annotation is none that JSON can say, or a parameter is not called by its name.
    """
    hints = typing.get_type_hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{function.__name__}: {parameter} cannot be given by name")
        try:
            properties[name] = _schema(hints.get(name, Any))
        except KeyError as error:
            raise TypeError(f"{function.__name__}: JSON has no {error.args[0]!r}, as {name} has it") from None
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            properties[name]["default"] = parameter.default
    return {"type": "object", "properties": properties, "required": required}


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of a template's arguments; of those that JSON cannot say, no more than their names."""
    named = inspect.signature(function).parameters
    try:
        schema = parameters_of(function)
    except TypeError:
        schema = {"type": "object", "properties": {name: {} for name in named}}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
    return schema if open_ended else {**schema, "additionalProperties": False}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Literal:
        return {"type": _PLAIN[type(arguments[0])], "enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        # The contract's schemas have no alternatives: "or None" says no more than that it may be left out.
        return _schema(next(part for part in arguments if part is not types.NoneType))
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    return {"type": _PLAIN[origin or hint]}
