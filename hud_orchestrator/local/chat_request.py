"""The body of a chat completion, as OpenAI's clients send it: what is used here, the rest ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tool_json import loads
from hud_orchestrator.local.tools import Tool, named

MAX_CHOICES = 128
"""Choices of one request, at most, as at OpenAI."""

MAX_ALTERNATIVES = 20
"""``top_logprobs``, at most, as at OpenAI."""


class ChatMessage(BaseModel):
    """One message. Keys besides these go to the chat template as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def for_template(self, where: str) -> dict[str, Any]:
        """The message with its content as one string, and the arguments of its calls as objects.

        Raises:
            Refused: 400, a part is not text, or a call has no function name.
        """
        message = {**(self.model_extra or {}), "role": self.role, "content": self._text(where)}
        if self.tool_calls:
            message["tool_calls"] = [
                _call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(self.tool_calls)
            ]
        return message

    def _text(self, where: str) -> str:
        if isinstance(self.content, list):
            return "".join(
                _text(part, f"{where}.content[{index}]") for index, part in enumerate(self.content)
            )
        return self.content or ""


class _Function(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(min_length=1)
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["function"]
    function: _Function


class _Named(BaseModel):
    name: str


class _Choice(BaseModel):
    type: Literal["function"]
    function: _Named


class _StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What is read of the body. ``null`` means the default, as in OpenAI's API."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    model: str
    checkpoint: str | None = None
    """The checkpoint to sample from; default: the model's head."""
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
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_ALTERNATIVES)
    return_token_ids: bool | None = None
    prompt_token_ids: Annotated[list[int], Field(min_length=1)] | None = None
    """Everything up to and with the latest reply, as token ids; needs ``continuation_from``."""
    continuation_from: int | None = Field(default=None, ge=1)
    """Messages that ``prompt_token_ids`` covers, system messages in front not counted."""
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    """Default true; false delivers the first call only."""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ChatRequest:
        if (self.prompt_token_ids is None) != (self.continuation_from is None):
            raise ValueError("prompt_token_ids and continuation_from come together or not at all")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        names = [tool.function.name for tool in self.tools or []]
        if isinstance(self.tool_choice, _Choice) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice: {self.tool_choice.function.name!r} is not one of tools: {names}")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice: required needs tools")
        return self

    def conversation(self) -> list[dict[str, Any]]:
        """The messages for the chat template.

        Raises:
            Refused: 400, a part is not text, or a call has no function name.
        """
        return [message.for_template(f"messages[{index}]") for index, message in enumerate(self.messages)]

    def offered(self) -> list[Tool]:
        """The tools, as they were sent."""
        return [tool.model_dump(exclude_unset=True) for tool in self.tools or []]

    def forced(self) -> tuple[bool, Tool | None]:
        """Whether a call must be made, and the tool that must be called, if only one will do."""
        tools = self.offered()
        if isinstance(self.tool_choice, _Choice):
            return True, named(tools, self.tool_choice.function.name)
        if self.tool_choice == "required":
            return True, tools[0] if len(tools) == 1 else None
        return False, None

    def stops(self) -> tuple[str, ...]:
        """The stop strings that can ever match."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


def _text(part: dict[str, Any], where: str) -> str:
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise Refused(400, f"{where}: only parts of type text are supported, got type {part.get('type')!r}")
    return text


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    """A call as templates want it: with an object of arguments, not its JSON, where it is one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refused(400, f"{where}: has no function with a name")
    given = function.get("arguments")
    arguments = loads(given) if isinstance(given, str) else given
    if not isinstance(arguments, dict):
        arguments = given if isinstance(given, str) else {}
    return {**call, "function": {**function, "arguments": arguments}}
