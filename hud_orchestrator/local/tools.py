"""Tool calls: which way of writing them a model knows, and what was written, read back.

A model writes calls as text, in the way that its chat template teaches::

    compact   \\x01move\\x022\\x021                                       the tiny base
    hermes    <tool_call>{"name": "move", "arguments": {...}}</tool_call>   Hermes, Qwen 2.5 and 3, SmolLM2
    function  <tool_call><function=move><parameter=row>2...</tool_call>     Qwen3-Coder, Qwen 3.5
    llama     {"name": "move", "parameters": {...}}                         Llama 3.1 and later

A template that knows no tools, or writes calls in a way that is not listed, is told about hermes calls
in a system message, and sees results as user messages: see ``without_template_support``.

What cannot be read as a call stays text. A call whose arguments are no JSON object is delivered with the
text as it is, which is then no JSON at all: the agent answers it to the model, as with other servers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Tool = dict[str, Any]
"""A tool as OpenAI's API takes it: ``{"type": "function", "function": {"name", "parameters", ...}}``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call."""

    name: str
    arguments: str
    """A JSON object, or what the model wrote instead."""


class Convention(Protocol):
    """A way of writing calls."""

    @property
    def markers(self) -> tuple[str, ...]:
        """What text must keep to be readable, also where a tokenizer takes it for special tokens."""
        ...

    def opening(self, tool: Tool | None) -> str:
        """The beginning of a call to *tool*, or to any; a model that goes on from there makes a call."""
        ...

    def plain(self, text: str) -> int:
        """How many characters of a text that still grows are surely no part of a call."""
        ...

    def read(self, text: str, tools: Sequence[Tool], /) -> tuple[str, list[ToolCall]]:
        """What is said around the calls, and the calls."""
        ...


def named(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool with this name."""
    return next((tool for tool in tools if tool["function"]["name"] == name), None)


def parameters(tool: Tool | None) -> dict[str, Any]:
    """The schema of each parameter, by name, in order."""
    schema = (tool["function"].get("parameters") if tool else None) or {}
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def as_arguments(value: Any, written: str) -> str:
    """Arguments as JSON if *value* is an object; else what was written, so that nobody takes it for JSON."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return written if loads(written) is None else "{" + written


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


def held_back(text: str, marker: str) -> int:
    """Where *marker* begins in a text that still grows, or may begin at its end; else the length."""
    found = text.find(marker)
    if found >= 0:
        return found
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-length:]):
            return len(text) - length
    return len(text)


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
