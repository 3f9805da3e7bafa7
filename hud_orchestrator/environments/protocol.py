"""What the daemon asks of an environment, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hud_orchestrator.records import Task

Messages = list[dict[str, Any]]


class Episode(Protocol):
    """One task, begun. Every method raises ``EnvironmentFailed`` when the environment breaks."""

    @property
    def prompt(self) -> Messages:
        """The first user turn, as messages; the start frame's prompt."""
        ...

    async def turn(self, answer: str) -> Messages | None:
        """Hand over an answer; further messages, or ``None`` when the environment has its grade."""
        ...

    async def grade(self, answer: str | None) -> Mapping[str, Any]:
        """The grade frame for the agent's last word; ``score`` is a finite number."""
        ...


class Placement(Protocol):
    """Where episodes run."""

    def episode(self, task: Task) -> AbstractAsyncContextManager[Episode]:
        """Begin a task; leaving gives back or destroys what it ran in, within a bounded time."""
        ...


def as_messages(prompt: object) -> Messages:
    """A prompt as a list of messages: text is one user turn, nothing is an empty one."""
    if isinstance(prompt, list):
        return [dict(message) for message in prompt]
    return [{"role": "user", "content": prompt if isinstance(prompt, str) else ""}]
