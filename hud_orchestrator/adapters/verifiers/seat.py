"""Where the library's environment asks and our agent answers. Standard library only."""

from __future__ import annotations

import asyncio
from typing import Any

Messages = list[dict[str, Any]]


class Seat:
    """Hands prompts one way and answers the other, one at a time."""

    def __init__(self) -> None:
        self._prompts: asyncio.Queue[Messages] = asyncio.Queue(1)
        self._answers: asyncio.Queue[str | None] = asyncio.Queue(1)

    async def ask(self, messages: Messages) -> str | None:
        """The agent's answer to *messages*; ``None`` when it was cut short."""
        self._prompts.put_nowait(messages)
        return await self._answers.get()

    async def asked(self, playing: asyncio.Task[Any]) -> Messages | None:
        """What the agent is asked next; ``None`` when *playing* is over without asking anything more."""
        prompt = asyncio.ensure_future(self._prompts.get())
        try:
            await asyncio.wait({prompt, playing}, return_when=asyncio.FIRST_COMPLETED)
            return prompt.result() if prompt.done() else None
        finally:
            prompt.cancel()

    def say(self, answer: str | None) -> None:
        """Answer what was asked."""
        self._answers.put_nowait(answer)
