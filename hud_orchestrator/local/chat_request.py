"""The body of a chat completion, as OpenAI's clients send it: what is used here, the rest ignored."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hud_orchestrator.local.replies import Refused

MAX_CHOICES = 128
"""Choices of one request, at most, as at OpenAI."""


class ChatMessage(BaseModel):
    """One message. Keys besides these go to the chat template as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any]] | None = None

    def for_template(self, where: str) -> dict[str, Any]:
        """The message with its content as one string.

        Raises:
            Refused: 400, a part is not text.
        """
        message = {**(self.model_extra or {}), "role": self.role}
        if isinstance(self.content, list):
            parts = [_text(part, f"{where}.content[{index}]") for index, part in enumerate(self.content)]
            return {**message, "content": "".join(parts)}
        return {**message, "content": self.content or ""}


class ChatRequest(BaseModel):
    """What is read of the body. ``null`` means the default, as in OpenAI's API."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0)
    """Default 1; 0 always takes the most likely token."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The newer name of ``max_tokens``, and stronger."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    return_token_ids: bool | None = None
    stream: bool | None = None

    def conversation(self) -> list[dict[str, Any]]:
        """The messages for the chat template.

        Raises:
            Refused: 400, a part is not text.
        """
        return [message.for_template(f"messages[{index}]") for index, message in enumerate(self.messages)]

    def stops(self) -> tuple[str, ...]:
        """The stop strings that can ever match."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


def _text(part: dict[str, Any], where: str) -> str:
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise Refused(400, f"{where}: only parts of type text are supported, got type {part.get('type')!r}")
    return text
