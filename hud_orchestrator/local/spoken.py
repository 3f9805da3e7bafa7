"""What a model has written as an assistant message: text, tool calls, or both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.completion import Sequence
from hud_orchestrator.local.tools import Tool
from hud_orchestrator.local.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A reply."""

    content: str | None
    calls: list[dict[str, Any]]
    """As OpenAI's API has them."""
    finish_reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """The ``message`` of a choice."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        return message | {"tool_calls": self.calls} if self.calls else message


class Listener:
    """Reads the replies to one request."""

    def __init__(self, asked: ChatRequest, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        must_call, tool = asked.forced()
        self._opening = vocabulary.convention.opening(tool) if must_call else ""
        self._tools: list[Tool] = [] if asked.tool_choice == "none" else asked.offered()
        self._only_one = asked.parallel_tool_calls is False

    @property
    def with_markers(self) -> bool:
        """Whether text must be decoded with what marks calls."""
        return bool(self._tools)

    def plain(self, text: str) -> int:
        """How many characters of a reply that still grows are surely content."""
        if not self._tools:
            return len(text)
        if self._opening:
            return 0
        # Blanks before a call are no content.
        return len(text[: self._vocabulary.convention.plain(text)].rstrip())

    def message(self, sequence: Sequence, index: int) -> Message:
        """The whole reply of a choice.

        ``finish_reason`` is ``length`` also where there are calls: the last of them may be cut.
        """
        written = sequence.text(self._vocabulary, with_markers=self.with_markers)
        if not self._tools:
            return Message(content=written, calls=[], finish_reason=sequence.finish_reason)
        said, calls = self._vocabulary.convention.read(self._opening + written, self._tools)
        if not calls:
            return Message(content=said, calls=[], finish_reason=sequence.finish_reason)
        told = [
            {
                "id": _call_id(sequence, index, number),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(calls[:1] if self._only_one else calls)
        ]
        finish_reason = "length" if sequence.finish_reason == "length" else "tool_calls"
        return Message(content=said.rstrip() or None, calls=told, finish_reason=finish_reason)


def _call_id(sequence: Sequence, index: int, number: int) -> str:
    """An id that only the tokens decide, because a template may show it to the model.

    Nine letters and digits: some templates take no other.
    """
    facts = (sequence.completion.prompt, sequence.token_ids, index, number)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:9]
