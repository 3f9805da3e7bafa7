"""Whether values have the shape of a run file: keys, types, ranges; every mistake, in words."""

from __future__ import annotations

import copy
import itertools
import json
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hud_orchestrator.config.document import Document
from hud_orchestrator.config.fields import allowed, is_shorthand, literals, section_at, section_of
from hud_orchestrator.config.mistakes import START, KeyPath, Mistake
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.section import Section
from hud_orchestrator.config.spelling import suggestion, unknown_key

_STANDINS: dict[str, dict[str, Any]] = {
    "run": {"name": "standin", "steps": 2**31},
    "model": {"slug": "standin"},
    "taskset": {"train": "standin"},
}
"""Values for required keys that are missing or wrong, so that the rest can still be checked."""


def read_shape(document: Document) -> tuple[RunFile | None, list[Mistake]]:
    """Return the run file, and the mistakes in it.

    Where there are mistakes, the run file has defaults and stand-ins in their places: good enough to look
    for mistakes between the other keys, and for nothing else. ``None``: not even that is possible.
    """
    data = document.data
    if not isinstance(data, dict):
        text = f"a run file is a mapping with the keys {', '.join(RunFile.model_fields)}, not {shown(data)}"
        return None, [Mistake(START, (), text)]
    data = _without_empty_sections(data, RunFile)
    try:
        return _validated(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    mistakes = [_mistake(detail, document, data) for detail in details]
    try:
        return _validated(_mended(data, [detail["loc"] for detail in details])), mistakes
    except ValidationError:
        return None, mistakes


def _validated(data: dict[str, Any]) -> RunFile:
    # Through JSON, because pydantic is strict about numbers there and still takes text for a path.
    return RunFile.model_validate_json(json.dumps(data), strict=True)


def _without_empty_sections(data: dict[str, Any], section: type[Section]) -> dict[str, Any]:
    """Take ``logging:`` with nothing below it for a section in which every key was left out."""
    kept = dict(data)
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is None or name not in data:
            continue
        if data[name] is None:
            kept[name] = {}
        elif isinstance(data[name], dict):
            kept[name] = _without_empty_sections(data[name], inner)
    return kept


def _mended(data: dict[str, Any], wrong: list[KeyPath]) -> dict[str, Any]:
    """Copy *data* without its wrong values, and with stand-ins for the required ones."""
    mended = copy.deepcopy(data)
    for path in wrong:
        # A wrong item takes its whole list along: what is left of it may be too short.
        names = list(itertools.takewhile(lambda part: isinstance(part, str), path))
        holder = mended
        for name in names[:-1]:
            holder = holder[str(name)]
        holder.pop(str(names[-1]), None)
    for name, standins in _STANDINS.items():
        mended[name] = standins | mended.get(name, {})
    return mended


def _mistake(detail: ErrorDetails, document: Document, data: Any) -> Mistake:
    path = detail["loc"]
    section = section_at(RunFile, path[:-1])
    if detail["type"] == "extra_forbidden" and section:
        return Mistake(document.keys[path], path, unknown_key(str(path[-1]), section))
    if detail["type"] == "missing":
        return Mistake(document.nearest(path), path, f"missing; it takes {_allowed(path)}")
    place = document.values.get(path) or document.nearest(path)
    return Mistake(place, path, _wrong_value(detail, path, _at(data, path)))


def _wrong_value(detail: ErrorDetails, path: KeyPath, value: Any) -> str:
    info = section_at(RunFile, path[:-1])
    inner = section_at(RunFile, path)
    text = f"{shown(value)} {_complaint(detail['type'])}; allowed: {_allowed(path)}"
    if inner and isinstance(path[-1], str):
        first = next(iter(inner.model_fields))
        return f'{text}; write for example "{path[-1]}: {{{first}: ...}}"'
    if isinstance(value, str) and info and str(path[-1]) in info.model_fields:
        if words := literals(info.model_fields[str(path[-1])].annotation):
            return text + suggestion(value, words)
        if re.fullmatch(r"[-+.0-9eE_]+|true|false", value):
            return f"{text}; remove the quotes"
    return text


def _complaint(kind: str) -> str:
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return "is out of range"
    if kind in ("too_short", "too_long"):
        return "has the wrong length"
    if kind == "finite_number":
        return "is not finite"
    return "does not fit"


def _allowed(path: KeyPath) -> str:
    """Say what the key at *path* takes; the element's kind for a path into a list or a mapping."""
    section = section_at(RunFile, path[:-1])
    if section and str(path[-1]) in section.model_fields:
        info = section.model_fields[str(path[-1])]
        return allowed(info.annotation, info.metadata)
    if path[-2:-1] == ("where",):
        return "a number, true, false or text, or a list of them"
    if items := section_at(RunFile, path):
        holder = section_at(RunFile, path[:-2])
        field = holder.model_fields.get(str(path[-2])) if holder else None
        text = "text, or " if field and is_shorthand(field.annotation, field.metadata) else ""
        return f"{text}a mapping with the keys {', '.join(items.model_fields)}"
    return "a number, true, false or text" if path[-2:-1] in (("loss_config",), ("options",)) else "text"


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def shown(value: Any) -> str:
    """Write *value* for a message: short, and with nothing in it that could be a key."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list" if value else "an empty list"
    if not isinstance(value, str):
        return str(value) if len(str(value)) <= 40 else "a number of more than 40 digits"
    if len(value) > 40 or re.fullmatch(r"sk-.*|(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_-]{24,}", value, re.DOTALL):
        return f"a text of {len(value)} characters"
    return json.dumps(value, ensure_ascii=True)
