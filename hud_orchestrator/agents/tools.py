"""Tools as the gateway takes them: names it allows, schemas, and results as messages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hud_orchestrator.agents.protocol import Message
from hud_orchestrator.toolbox import ToolResult, ToolSpec

NAME_LIMIT = 64
"""Characters of a tool's name, at most, at OpenAI's API and so at every gateway."""

DONE = "Tool executed successfully"
"""What the model reads of a tool that answered nothing."""


class ToolNames:
    """The tools under names that a gateway takes, and the way back."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._originals = {_allowed(tool.name): tool.name for tool in tools}
        self.specs = tuple(replace(tool, name=_allowed(tool.name)) for tool in tools)
        """The tools to offer."""

    @property
    def known(self) -> list[str]:
        """The names that are offered."""
        return list(self._originals)

    def original(self, name: str) -> str | None:
        """The environment's name of a tool, ``None`` for one that it does not have."""
        return self._originals.get(name)


def as_openai(tool: ToolSpec) -> dict[str, Any]:
    """A tool in the words of a chat completion."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def as_choice(choice: str) -> str | dict[str, Any]:
    """Which tool must be called, in the words of a chat completion: a mode, or the name of a tool."""
    if choice in ("auto", "required", "none"):
        return choice
    return {"type": "function", "function": {"name": _allowed(choice)}}


def result_messages(call_id: str, result: ToolResult) -> list[Message]:
    """A result as messages: its text, and its last image, which a tool's message cannot hold."""
    texts = [str(part.get("text", "")) for part in result.content if part.get("type") == "text"]
    messages: list[Message] = [{"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts) or DONE}]
    images = [part for part in result.content if part.get("type") == "image"]
    if images:
        data = f"data:{images[-1].get('mimeType', 'image/png')};base64,{images[-1].get('data', '')}"
        content = [{"type": "image_url", "image_url": {"url": data}}]
        messages.append({"role": "user", "content": content})
    return messages


def _allowed(name: str) -> str:
    """*name* in letters, digits, ``_`` and ``-``; told apart by a hash where it had to be changed."""
    clean = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if clean == name and len(name) <= NAME_LIMIT and name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{clean[: NAME_LIMIT - 9]}_{digest}"
