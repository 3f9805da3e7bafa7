"""The ways of writing tool calls that are known, and which of them a chat template teaches."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from hud_orchestrator.local.tool_json import as_arguments, decode_first, loads, typed
from hud_orchestrator.local.tools import Convention, Tool, ToolCall, held_back, named, parameters

_NAME = re.compile(r'"name"\s*:\s*"([^"]*)')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*')
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)


def convention_of(template: str) -> tuple[Convention, bool]:
    """The convention for a chat template, and whether the template itself renders tools in it."""
    if re.search(r"\btools\b", template):
        if r"\x01" in template:
            return _Compact(), True
        if "<function=" in template:
            return _Function(), True
        # GLM has the same tag around something else.
        if "<tool_call>" in template and "<arg_key>" not in template:
            return _Hermes(), True
        if '"parameters": dictionary' in template:
            return _Llama(), True
    return _Hermes(), False


class _Compact:
    """Control bytes, and arguments by position; described at the tiny base's tokenizer."""

    markers = ("\x01", "\x02")

    def opening(self, tool: Tool | None) -> str:
        # With the separator, the name is complete.
        return f"\x01{tool['function']['name']}\x02" if tool else "\x01"

    def plain(self, text: str) -> int:
        return held_back(text, "\x01")

    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        said, *calls = text.split("\x01")
        return said, [self._call(call, tools) for call in calls]

    def _call(self, text: str, tools: Sequence[Tool]) -> ToolCall:
        name, _, rest = text.partition("\x02")
        schemas = parameters(named(tools, name))
        values = rest.split("\x02")
        while values and not values[-1]:
            values.pop()
        if len(values) > len(schemas):
            return ToolCall(name, as_arguments(None, rest))
        try:
            given = [(key, typed(v, schemas[key])) for key, v in zip(schemas, values, strict=False) if v]
        except ValueError:
            return ToolCall(name, as_arguments(None, rest))
        return ToolCall(name, as_arguments(dict(given), rest))


class _Tagged(ABC):
    """Calls between ``<tool_call>`` and ``</tool_call>``; the last may lack its end."""

    markers = ("<tool_call>", "</tool_call>")

    def plain(self, text: str) -> int:
        return held_back(text, "<tool_call>")

    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        said, *blocks = text.split("<tool_call>")
        calls: list[ToolCall] = []
        for block in blocks:
            body, _, after = block.partition("</tool_call>")
            found = self._calls(body.strip(), tools)
            if not found:
                # Not readable as a call, so it stays what it is: text.
                said += "<tool_call>" + block
                continue
            calls += found
            said += after
        return said, calls

    @abstractmethod
    def _calls(self, body: str, tools: Sequence[Tool]) -> list[ToolCall]:
        """The calls in one tag; none, when it cannot be read."""


class _Hermes(_Tagged):
    """A JSON object in each tag, or a list of them."""

    def opening(self, tool: Tool | None) -> str:
        begin = '<tool_call>\n{"name": "'
        return f'{begin}{tool["function"]["name"]}", "arguments":' if tool else begin

    def _calls(self, body: str, _tools: Sequence[Tool]) -> list[ToolCall]:
        return _json_calls(body)


class _Function(_Tagged):
    """A tag for the function and one for each parameter."""

    def opening(self, tool: Tool | None) -> str:
        return f"<tool_call>\n<function={tool['function']['name']}>\n" if tool else "<tool_call>\n<function="

    def _calls(self, body: str, _tools: Sequence[Tool]) -> list[ToolCall]:
        begin = re.match(r"<function=([^>\n]*)>?\s*", body)
        if begin is None:
            return []
        name, rest = begin[1].strip(), body[begin.end() :].removesuffix("</function>")
        schemas = parameters(named(_tools, name))
        leftover = _PARAMETER.sub("", rest)
        try:
            arguments = {key: typed(value, schemas.get(key)) for key, value in _PARAMETER.findall(rest)}
        except ValueError:
            return [ToolCall(name, as_arguments(None, rest.strip()))]
        return [ToolCall(name, as_arguments(None if leftover.strip() else arguments, rest.strip()))]


class _Llama:
    """The whole reply is one JSON object, or several with semicolons between."""

    markers = ("<|python_tag|>",)

    def opening(self, tool: Tool | None) -> str:
        return f'{{"name": "{tool["function"]["name"]}", "parameters":' if tool else '{"name": "'

    def plain(self, text: str) -> int:
        begin = text.lstrip()
        may_call = begin.startswith("{") or "<|python_tag|>".startswith(begin[: len("<|python_tag|>")])
        return 0 if may_call else len(text)

    def read(self, text: str, _tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        body = text.strip().removeprefix("<|python_tag|>").strip()
        calls = _json_calls(body) if body.startswith("{") else []
        return ("", calls) if calls else (text, [])


def _json_calls(body: str) -> list[ToolCall]:
    """Calls as JSON objects in a row, or in a list; the last may be cut or wrong inside its arguments."""
    calls: list[ToolCall] = []
    rest = body
    while rest and (first := decode_first(rest)) is not None:
        value, end = first
        for one in value if isinstance(value, list) else [value]:
            if not (isinstance(one, dict) and isinstance(one.get("name"), str)):
                return []
            calls.append(ToolCall(one["name"], _arguments(one)))
        rest = rest[end:].lstrip("; \t\r\n")
    if name := _NAME.search(rest):
        calls.append(ToolCall(name[1], _unfinished_arguments(rest)))
    return calls


def _arguments(call: dict[str, Any]) -> str:
    value = call.get("arguments", call.get("parameters", {}))
    if isinstance(value, str):
        # Some models quote the object once more.
        return as_arguments(loads(value), value)
    return as_arguments({} if value is None else value, str(value))


def _unfinished_arguments(body: str) -> str:
    begin = _ARGUMENTS.search(body)
    written = body[begin.end() :] if begin else ""
    first = decode_first(written)
    return as_arguments(first[0] if first else None, written.strip())
