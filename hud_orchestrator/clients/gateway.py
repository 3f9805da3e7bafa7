"""Sampling: chat completions that return the tokens they sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One turn to sample, in OpenAI's words. Ours to fill, so nothing of it is checked: it may be long."""

    model: str
    messages: Sequence[dict[str, Any]]
    stream: bool = False
    logprobs: bool = True
    return_token_ids: bool = True
    max_tokens: int
    temperature: float
    top_p: float
    stop: Sequence[str] | None = None
    seed: int | None = None
    tools: Sequence[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    """``required``, ``none``, or the one tool to call; ``None`` leaves it to the model."""
    parallel_tool_calls: bool | None = None
    prompt_token_ids: Sequence[int] | None = None
    """Tokens of the conversation so far, the last turn included."""
    checkpoint: str | None = None
    """Another one than the head, by its id."""
    continuation_from: int | None = None
    """Messages from this one on are not among them; leading system messages are not counted."""

    def body(self) -> dict[str, Any]:
        """What goes over the wire: everything that is not ``None``."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


class TokenLogprob(BaseModel):
    """One sampled token."""

    logprob: float


class Logprobs(BaseModel):
    """Log-probabilities of the sampled tokens, in nats."""

    content: list[TokenLogprob] | None = None


class Function(BaseModel):
    """What a tool call calls."""

    name: str
    arguments: str = ""


class FunctionCall(BaseModel):
    """One entry of ``tool_calls``."""

    id: str
    type: str | None = None
    function: Function


class Message(BaseModel):
    """What the model said. Fields that are not named here are kept, and repeated in the next request."""

    model_config = ConfigDict(extra="allow")

    role: str = "assistant"
    content: str | None = None
    tool_calls: list[FunctionCall] | None = None

    @property
    def functions(self) -> list[FunctionCall]:
        """The calls of functions; others are not known."""
        return [call for call in self.tool_calls or () if call.type == "function"]

    def as_said(self) -> dict[str, Any]:
        """The message as the next request repeats it."""
        return self.model_dump(exclude_none=True)


class Choice(BaseModel):
    """One completion, with the token ids that HUD's gateway adds."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None

    @property
    def token_logprobs(self) -> list[float]:
        """Log-probabilities of ``token_ids``, in nats; empty where the gateway gave none."""
        return [token.logprob for token in (self.logprobs and self.logprobs.content) or ()]


class Completion(BaseModel):
    """The gateway's answer."""

    choices: list[Choice] = Field(min_length=1)
    model: str | None = None
    usage: dict[str, Any] | None = None
    system_fingerprint: str | None = None
    """The checkpoint that served it, where the gateway says so."""


class Gateway:
    """Samples one model: its head, or one of its checkpoints."""

    def __init__(self, transport: Transport, *, model: str, checkpoint: str | None = None) -> None:
        self.model = model
        self.checkpoint = checkpoint
        self._transport = transport

    async def chat(self, request: ChatRequest, *, trace_id: str, retry: Retry) -> Completion:
        """Sample one turn. May be repeated: sampling changes nothing but the next random number."""
        return await self._transport.read(
            "POST",
            "/chat/completions",
            reply=Completion,
            retry=retry,
            body=request.body(),
            headers={"Trace-Id": trace_id},
        )
