"""What happened in an episode, in order: what was said to the model, what it said, what its tools answered.

Every message is there once: an agent's step holds what that turn added, not the conversation before it.
Images and very long texts are cut where they are noted, so that nothing after that has to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

TEXT_LIMIT = 16_384
"""Characters of one text that are kept."""

EPISODE_LIMIT = 1_000_000
"""Characters of all texts of one episode; after that, little is kept of each."""

LITTLE = 200


class Source(StrEnum):
    """Who did it, in the words of HUD's steps."""

    USER = "user"
    """The environment spoke to the model."""
    AGENT = "agent"
    """The model's turn."""
    TOOL = "tool"
    """A call of a tool, and its result."""
    TASK = "task"
    """The environment graded; the frame is the rollout's ``grade``."""
    SYSTEM = "system"
    """Something went wrong."""


class EpisodeStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. What does not belong to its source is left at its default.

    There are several of each attempt, so they are made and written down by what does it quickest.
    """

    source: Source
    began: float
    """Seconds since the attempt began."""
    ended: float
    messages: Sequence[Mapping[str, Any]] = ()
    """What was said to the model and is new."""
    content: str | None = None
    reasoning: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """``id``, ``name`` and ``arguments``, JSON text, of each."""
    finish_reason: str | None = None
    model: str | None = None
    """What the gateway says answered."""
    usage: Mapping[str, Any] | None = None
    """Tokens, as the gateway counted them."""
    sample: int | None = None
    """Which of the rollout's samples has its tokens."""
    call: Mapping[str, Any] | None = None
    """The call of a tool, like one of ``tool_calls``."""
    result: Mapping[str, Any] | None = None
    """``content``, a list of parts, and ``isError``."""
    error: str | None = None


class Clipper:
    """Cuts the texts of one episode; short ones are handed back as they are."""

    def __init__(self) -> None:
        self._room = EPISODE_LIMIT

    def text(self, text: str) -> str:
        """*text*, or its beginning and how much is missing."""
        limit = min(TEXT_LIMIT, max(self._room, LITTLE))
        self._room -= min(len(text), limit)
        return text if len(text) <= limit else f"{text[:limit]} [... {len(text) - limit} more characters]"

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message with its texts cut, and a note in place of every image."""
        content = message.get("content")
        if isinstance(content, str):
            return {**message, "content": self.text(content)}
        if isinstance(content, Sequence):
            return {**message, "content": self.parts(content)}
        return dict(message)

    def parts(self, parts: Sequence[Any]) -> list[dict[str, Any]]:
        """Parts of a content: texts are cut, and of everything else only its kind and size are kept."""
        return [self._part(part) for part in parts]

    def _part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, Mapping) and part.get("type") == "text":
            return {"type": "text", "text": self.text(str(part.get("text", "")))}
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        return {"type": "text", "text": f"[{str(kind).removesuffix('_url')}, {_size(part)} characters]"}


def _size(part: Any) -> int:
    """Characters of the texts in *part*."""
    if isinstance(part, Mapping):
        return sum(_size(value) for key, value in part.items() if key not in ("type", "mimeType"))
    return len(part) if isinstance(part, str) else 0
