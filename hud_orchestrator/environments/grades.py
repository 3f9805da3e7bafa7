"""Whether what an environment answers is a grade: the contract's grade frame, section 6.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST_SCORE = 3.4e38
"""Training is in 32-bit floats, which end here."""

DEEPEST = 16
"""Subscores in subscores, at most."""

KNOWN = frozenset({"name", "weight", "value", "children", "info", "metadata"})
"""Keys of a subscore; ``metadata`` is the SDK's older name of ``info``."""


class NotAGrade(Exception):
    """The frame is no grade; the text says where."""


def check_grade(frame: Mapping[str, Any]) -> float:
    """The score of a grade frame.

    Raises:
        NotAGrade: ``score`` is not a finite number, or ``subscores`` are malformed.
    """
    score: Any = frame.get("score")
    if not _is_number(score):
        raise NotAGrade(f"score is {_short(score)}, expected a finite number")
    if frame.get("subscores") is not None:
        _check_subscores(frame["subscores"], "subscores", depth=1)
    return float(score)


def _check_subscores(found: object, place: str, *, depth: int) -> None:
    if not isinstance(found, list):
        raise NotAGrade(f"{place} is {type(found).__name__}, expected a list")
    if depth > DEEPEST:
        raise NotAGrade(f"{place}: nested deeper than {DEEPEST}")
    for index, one in enumerate(found):
        _check_subscore(one, f"{place}[{index}]", depth=depth)


def _check_subscore(one: object, place: str, *, depth: int) -> None:
    if not isinstance(one, Mapping):
        raise NotAGrade(f"{place} is {type(one).__name__}, expected an object")
    if not isinstance(one.get("name"), str):
        raise NotAGrade(f"{place}.name is {_short(one.get('name'))}, expected text")
    value: Any = one.get("value")
    if not _is_number(value) or not 0 <= value <= 1:
        raise NotAGrade(f"{place}.value is {_short(value)}, expected a number from 0 to 1")
    if not _is_number(one.get("weight", 1.0)):
        raise NotAGrade(f"{place}.weight is {_short(one['weight'])}, expected a finite number")
    unknown = sorted(one.keys() - KNOWN)
    if unknown:
        raise NotAGrade(f"{place} has the unknown key {unknown[0]!r}")
    if one.get("children") is not None:
        _check_subscores(one["children"], f"{place}.children", depth=depth + 1)


def _is_number(value: Any) -> bool:
    # Compared before anything is converted: a long integer is no float.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST_SCORE <= value <= LARGEST_SCORE


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "a number that is too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
