"""What the daemon asks of an environment, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hud_orchestrator.errors import EnvironmentLost
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

    async def grade(self, answer: Any) -> Mapping[str, Any]:
        """The grade frame for *answer*, as the environment gives it: whoever asks looks whether it is one.

        The answer is the agent's last word, ``None`` without one, or for a verifier the frame that it
        verifies.
        """
        ...

    async def follow(self, task: Task) -> Episode:
        """Begin *task*, once this one is graded, where this one ran; it ends with this one."""
        ...


class Placement(Protocol):
    """Where episodes run."""

    def episode(self, task: Task, *, trace_id: str | None = None) -> AbstractAsyncContextManager[Episode]:
        """Begin a task; leaving gives back or destroys what it ran in, within a bounded time.

        *trace_id* names the attempt to whatever the episode calls elsewhere.
        """
        ...


def as_messages(prompt: object) -> Messages:
    """A prompt as a list of messages: text is one user turn, nothing is an empty one.

    Raises:
        EnvironmentLost: it is neither.
    """
    if prompt is None or isinstance(prompt, str):
        return [{"role": "user", "content": prompt or ""}]
    if not isinstance(prompt, list):
        raise EnvironmentLost(f"the prompt is {type(prompt).__name__}, expected text or a list of messages")
    for index, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise EnvironmentLost(f"message {index} of the prompt is no object with a role and a content")
    return [dict(message) for message in prompt]


def as_tools(found: object) -> tuple[ToolSpec, ...]:
    """Tools as an environment of ours lists them in its start frame.

    Raises:
        EnvironmentLost: they are no list of tools.
    """
    if found is None:
        return ()
    if not isinstance(found, list):
        raise EnvironmentLost(f"the tools are {type(found).__name__}, expected a list")
    for index, row in enumerate(found):
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
            raise EnvironmentLost(f"tool {index} is no object with a name")
        if not isinstance(row.get("parameters") or {}, Mapping):
            raise EnvironmentLost(f"tool {row['name']!r}: its parameters are no JSON schema")
    return tuple(
        ToolSpec(
            name=row["name"], description=str(row.get("description") or ""), parameters=row["parameters"]
        )
        if row.get("parameters")
        else ToolSpec(name=row["name"], description=str(row.get("description") or ""))
        for row in found
    )


def as_result(frame: Mapping[str, Any]) -> ToolResult:
    """What a tool answered.

    Raises:
        EnvironmentLost: it is no result.
    """
    content = frame.get("content")
    if content is not None and not (
        isinstance(content, list) and all(isinstance(part, Mapping) for part in content)
    ):
        raise EnvironmentLost("tools.call: the content of its result is no list of parts")
    return ToolResult(content=content or [], is_error=bool(frame.get("isError")))
