"""What the daemon asks of an environment, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hud_orchestrator.records import Task
from hud_orchestrator.toolbox import ToolResult, ToolSpec

Messages = list[dict[str, Any]]


class Episode(Protocol):
    """One task, begun.

    Every method raises ``EnvironmentFailed`` when the environment says no or raises, ``EnvironmentLost``
    when it is gone, and ``ToolsLost`` when its tools are.
    """

    @property
    def prompt(self) -> Messages:
        """The first user turn, as messages; the start frame's prompt."""
        ...

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What the agent may call."""
        ...

    @property
    def conversational(self) -> bool:
        """Whether :meth:`turn` may be called: templates of ours may ask for more than one answer."""
        ...

    async def turn(self, answer: str) -> Messages | None:
        """Hand over an answer; further messages, or ``None`` when the environment has its grade."""
        ...

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one of :attr:`tools`; what it raises is a result for the agent to read."""
        ...

    async def grade(self, answer: str | None) -> Mapping[str, Any]:
        """The grade frame for the agent's last word; ``score`` is a finite number."""
        ...


class Placement(Protocol):
    """Where episodes run."""

    def episode(self, task: Task, *, trace_id: str | None = None) -> AbstractAsyncContextManager[Episode]:
        """Begin a task; leaving gives back or destroys what it ran in, within a bounded time.

        *trace_id* names the attempt to whatever the episode calls elsewhere.
        """
        ...


def as_messages(prompt: object) -> Messages:
    """A prompt as a list of messages: text is one user turn, nothing is an empty one."""
    if isinstance(prompt, list):
        return [dict(message) for message in prompt]
    return [{"role": "user", "content": prompt if isinstance(prompt, str) else ""}]


def as_tools(found: object) -> tuple[ToolSpec, ...]:
    """Tools as an environment of ours lists them in its start frame."""
    rows = found if isinstance(found, list) else []
    return tuple(
        ToolSpec(name=row["name"], description=row["description"], parameters=row["parameters"])
        for row in rows
    )


def as_result(frame: Mapping[str, Any]) -> ToolResult:
    """What a tool answered."""
    return ToolResult(content=frame.get("content") or [], is_error=bool(frame.get("isError")))
