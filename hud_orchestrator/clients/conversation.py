"""Talk to one model: every answer remembers what was said before it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import RequestRejected, ServiceBusy

PATH = "/chat/completions"


class Request(BaseModel):
    """One turn, in OpenAI's words; what is ``None`` is left to the gateway."""

    model: str
    messages: list[dict[str, str]]
    stream: bool
    checkpoint: str | None = None
    """Answer with this checkpoint instead of the head: HUD's addition."""
    temperature: float | None = None
    max_tokens: int | None = None


class _Text(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Text | None = None
    message: _Text | None = None


class _Piece(BaseModel):
    choices: list[_Choice] = []
    error: Any = None

    def text(self) -> str:
        said = [choice.delta or choice.message for choice in self.choices[:1]]
        return "".join(part.content or "" for part in said if part)


class Conversation:
    """The turns so far, and the next one."""

    def __init__(
        self,
        transport: Transport,
        *,
        model: str,
        checkpoint: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Talk to the slug *model*, or to one *checkpoint* of it by its id."""
        self._transport = transport
        self._turn = Request(
            model=model,
            messages=[] if system is None else [{"role": "system", "content": system}],
            stream=True,
            checkpoint=checkpoint,
            temperature=temperature,
            max_tokens=max_tokens,
        )

    async def say(self, text: str) -> AsyncGenerator[str, None]:
        """Say *text*, and yield the answer in pieces as they come; in one where the gateway cannot stream.

        An answer that is cut off is remembered as far as it came. A turn without an answer is forgotten.

        Raises:
            ServiceError: there is no answer.
        """
        messages = [*self._turn.messages, {"role": "user", "content": text}]
        said = ""
        try:
            async with aclosing(self._pieces(messages)) as pieces:
                async for piece in pieces:
                    said += piece
                    yield piece
        finally:
            if said:
                answered = [*messages, {"role": "assistant", "content": said}]
                self._turn = self._turn.model_copy(update={"messages": answered})

    def forget(self) -> None:
        """Go back to before the first turn."""
        kept = [message for message in self._turn.messages if message["role"] == "system"]
        self._turn = self._turn.model_copy(update={"messages": kept})

    async def _pieces(self, messages: list[dict[str, str]]) -> AsyncGenerator[str, None]:
        request = self._turn.model_copy(update={"messages": messages})
        try:
            async for piece in self._sampled(request):
                yield piece
        except RequestRejected as error:
            if not request.stream or error.status not in (400, 422) or "stream" not in str(error):
                raise
            self._turn = self._turn.model_copy(update={"stream": False})
            async for piece in self._sampled(request.model_copy(update={"stream": False})):
                yield piece

    async def _sampled(self, request: Request) -> AsyncGenerator[str, None]:
        async with aclosing(self._transport.events(PATH, request, reply=_Piece)) as pieces:
            async for piece in pieces:
                if piece.error is not None:
                    said = piece.error.get("message") if isinstance(piece.error, dict) else piece.error
                    raise ServiceBusy(f"POST {self._transport.base_url}{PATH}: broke off: {said}")
                yield piece.text()
