"""JSON as models write it inside tool calls: strict where it is JSON, kept as text where it is not."""

from __future__ import annotations

import json
import math
import re
from typing import Any


def as_arguments(value: Any, written: str) -> str:
    """Arguments as JSON if *value* is an object; else what was written, so that nobody takes it for JSON."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    is_json = written.strip() == "null" or loads(written) is not None
    return "{" + written if is_json else written


def loads(text: str) -> Any:
    """The value of a JSON text; ``None`` for ``null``, and for what is no JSON."""
    found = decode_first(text)
    return found[0] if found and not text[found[1] :].strip() else None


def typed(text: str, schema: Any) -> Any:
    """A value that was written without quotes: a string where *schema* wants one, otherwise JSON.

    Raises:
        ValueError: it should be JSON, and is not.
    """
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string":
        return text
    value = loads(text)
    if value is None and text.strip() != "null":
        if kind is None:
            return text
        raise ValueError(text)
    return value


def decode_first(text: str) -> tuple[Any, int] | None:
    """The JSON value that *text* begins with, and where it ends; ``None`` without one.

    A value that cannot be sent on is none: with half of a surrogate pair, or a number that is not finite.
    """
    begin = re.match(r"\s*", text)
    try:
        value, end = _DECODER.raw_decode(text, begin.end() if begin else 0)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value, end


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
