"""Episodes inside the daemon: for pure functions, which neither block nor hang."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio

from hud_orchestrator.environments.control import read_frame
from hud_orchestrator.environments.protocol import Messages, as_messages, as_result, as_tools
from hud_orchestrator.environments.runner import Runner
from hud_orchestrator.environments.source import environments
from hud_orchestrator.errors import EnvironmentFailed, GraderRaised, JudgeFailed
from hud_orchestrator.foreign import raised_by_itself
from hud_orchestrator.records import Task
from hud_orchestrator.toolbox import ToolResult

T = TypeVar("T")


class InProcessEpisode:
    """One episode driven directly."""

    def __init__(self, home: InProcess, runner: Runner, start: Mapping[str, Any]) -> None:
        self._home = home
        self._runner = runner
        self.prompt: Messages = as_messages(start["prompt"])
        self.tools = as_tools(start.get("tools"))
        self.conversational = True

    async def turn(self, answer: str) -> Messages | None:
        """Hand over an answer; further messages, or ``None`` when the grade is there."""
        frame = await _frame(self._runner.turn(answer))
        return None if "score" in frame else as_messages(frame["prompt"])

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool."""
        return as_result(await _frame(self._runner.call_tool(name, dict(arguments))))

    async def grade(self, answer: Any) -> Mapping[str, Any]:
        """The grade frame."""
        return await _frame(self._runner.grade(answer))

    async def follow(self, task: Task) -> InProcessEpisode:
        """Begin *task* with the same environments; the template before it puts its things away first."""
        return await self._home.begin(self._runner, task)


class InProcess:
    """Runs every episode on the daemon's own loop."""

    def __init__(self, source: Path, *, teardown_s: float) -> None:
        self._environments = environments(source)
        self._teardown_s = teardown_s

    @asynccontextmanager
    async def episode(
        self,
        task: Task,
        *,
        trace_id: str | None = None,  # noqa: ARG002  (nothing here calls elsewhere)
    ) -> AsyncGenerator[InProcessEpisode, None]:
        """Begin *task*; leaving runs the template's cleanup."""
        if task.env not in self._environments:
            raise EnvironmentFailed(
                f"there is no environment {task.env!r}; the source has {sorted(self._environments)}"
            )
        runner = Runner(self._environments[task.env])
        try:
            yield await self.begin(runner, task)
        finally:
            # What a template's cleanup raises must not hide what happened before.
            with anyio.move_on_after(self._teardown_s, shield=True), suppress(EnvironmentFailed):
                await _guest(runner.close())

    async def begin(self, runner: Runner, task: Task) -> InProcessEpisode:
        """Start *task*.

        Raises:
            EnvironmentFailed: it did not start, or gave something that is no prompt.
        """
        start = await _frame(runner.start(task.id, dict(task.args)))
        return InProcessEpisode(self, runner, start)


async def _frame(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """What an environment's code gives, as it would come out of another process."""
    frame = await _guest(work)
    try:
        read: dict[str, Any] = read_frame(json.dumps(frame, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise EnvironmentFailed(f"the environment's frame is not JSON: {error}") from error
    return read


async def _guest(work: Awaitable[T]) -> T:
    try:
        return await work
    except BaseException as error:
        if not raised_by_itself(error):
            raise
        kind = GraderRaised if isinstance(error, JudgeFailed) else EnvironmentFailed
        raise kind(f"{type(error).__name__}: {error}") from error
