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


def held_back(text: str, marker: str) -> int:
    """Where *marker* begins in a text that still grows, or may begin at its end; else the length."""
    found = text.find(marker)
    if found >= 0:
        return found
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-length:]):
            return len(text) - length
    return len(text)
