"""The keys of a section, and in words what each may be."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from hud_orchestrator.config.entries import Shorthand
from hud_orchestrator.config.section import Section, WantedValue

PLAIN_VALUES = "numbers, true, false or texts"
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a key with this annotation holds, or ``None`` for a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below *section* that is not itself a section, dotted, in the order of the file."""
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is None:
            yield prefix + name, info
        else:
            yield from leaves(inner, f"{prefix}{name}.")


def section_at(root: type[Section], path: typing.Sequence[str | int]) -> type[Section] | None:
    """Return the section that stands at *path*, or ``None`` where there is none."""
    found: Any = root
    for part in path:
        section = section_of(found)
        if isinstance(part, int):
            found = items_of(found)
        else:
            info = section.model_fields.get(part) if section else None
            found = info.annotation if info else None
    return section_of(found)


def items_of(annotation: Any) -> type[Section] | None:
    """Return the section that every item of a key's list is, or ``None`` for a key without such a list."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is list:
        return section_of(arguments[0])
    nested = (items_of(one) for one in arguments[:1] if typing.get_origin(annotation) is not dict)
    return next(nested, None)


def is_shorthand(annotation: Any, metadata: typing.Sequence[Any] = ()) -> bool:
    """Tell whether a list of sections may be written as texts."""
    if any(isinstance(part, Shorthand) for part in (*metadata, *getattr(annotation, "__metadata__", ()))):
        return True
    return any(is_shorthand(argument) for argument in typing.get_args(annotation))


def literals(annotation: Any) -> tuple[str, ...]:
    """List the allowed words of a ``Literal``; empty for everything else."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def allowed(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """Say what a key with this annotation takes: ``a number from 0 to 1``, ``one of local, hud``."""
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if inner := section_of(annotation):
        return f"a mapping with the keys {', '.join(inner.model_fields)}"
    if items := items_of(annotation):
        text = "text, or " if is_shorthand(annotation, metadata) else ""
        return f"{text}a list of mappings with the keys {', '.join(items.model_fields)}"
    if origin in (types.UnionType, typing.Union):
        some = next(argument for argument in arguments if argument is not types.NoneType)
        return allowed(some, metadata)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is typing.Annotated:
        return allowed(arguments[0], metadata)
    if origin is list:
        return f"a list of {_plural(arguments[0])}{_length(metadata)}"
    if origin is dict:
        return f"a mapping of names to {_plural(arguments[1])}"
    return _WORDS[annotation] + _range(metadata, whole=annotation is int) + _pattern(metadata)


def _plural(annotation: Any) -> str:
    if annotation == WantedValue:
        return f"{PLAIN_VALUES}, or to lists of them"
    return {str: "texts", float: "numbers"}.get(annotation, PLAIN_VALUES)


def _bound(metadata: typing.Sequence[Any], name: str) -> Any:
    return next((value for part in metadata if (value := getattr(part, name, None)) is not None), None)


def _range(metadata: typing.Sequence[Any], *, whole: bool) -> str:
    least, above, most, below = (_bound(metadata, name) for name in ("ge", "gt", "le", "lt"))
    if whole and below is not None:
        most, below = below - 1, None
    low = f"from {least}" if least is not None else f"above {above}" if above is not None else ""
    high = f"to {most}" if most is not None else f"to below {below}" if below is not None else ""
    if above is not None and most is not None:
        return f" above {above}, at most {most}"
    if least is not None and not high:
        return f", {least} or more"
    return "".join(f" {part}" for part in (low, high) if part)


def _length(metadata: typing.Sequence[Any]) -> str:
    least, most = _bound(metadata, "min_length"), _bound(metadata, "max_length")
    bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return f", {' and '.join(bounds)}" if bounds else ""


def _pattern(metadata: typing.Sequence[Any]) -> str:
    pattern = _bound(metadata, "pattern")
    return f" that matches {pattern}" if pattern else ""
