"""Tools for a model whose chat template knows none: everything about them is said in plain messages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from hud_orchestrator.local.tools import Tool

Message = dict[str, Any]

_INSTRUCTIONS = """\
# Tools

You may call one or more functions. Their signatures are, one in each line:
<tools>
{tools}
</tools>

For each call, write a JSON object with the function's name and arguments between tags:
<tool_call>
{{"name": <name>, "arguments": <object>}}
</tool_call>"""


def without_template_support(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The conversation in system, user and assistant messages of plain text.

    *tools* are described at the end of the system message, calls are written as the model should write
    them, and results that follow each other become one user message.
    """
    plain: list[Message] = []
    for is_result, together in itertools.groupby(messages, lambda one: one["role"] == "tool"):
        if is_result:
            results = [f"<tool_response>\n{one['content']}\n</tool_response>" for one in together]
            plain.append({"role": "user", "content": "\n".join(results)})
        else:
            plain += map(_with_calls_written_out, together)
    return _with_system(plain, _INSTRUCTIONS.format(tools="\n".join(map(_line, tools)))) if tools else plain


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        first = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_calls_written_out(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    said = [message["content"]] if message["content"] else []
    return {
        "role": message["role"],
        "content": "\n".join([*said, *(_call(call["function"]) for call in calls)]),
    }


def _call(function: dict[str, Any]) -> str:
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _line(tool: Tool) -> str:
    return json.dumps(tool, ensure_ascii=False)
