"""Environments of a simulation: they answer at once, or late, or not at all, or are lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio

from hud_orchestrator.environments.protocol import Messages
from hud_orchestrator.errors import EnvironmentFailed, EnvironmentLost
from hud_orchestrator.records import Task
from hud_orchestrator.toolbox import ToolResult, ToolSpec


class SimulatedEpisode:
    """Grades a digit by its parity."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.prompt: Messages = [{"role": "user", "content": "even?"}]
        self.tools: tuple[ToolSpec, ...] = ()
        self.conversational = False

    async def turn(self, answer: str) -> Messages | None:
        """Never called: it does not converse."""
        raise AssertionError(answer)

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Never called: there are no tools."""
        raise AssertionError(name, arguments)

    async def grade(self, answer: Any) -> Mapping[str, Any]:
        """One for an even digit."""
        roll = self._rng.random()
        if roll < 0.01:
            await anyio.sleep_forever()
        if roll < 0.02:
            raise EnvironmentLost("gone")
        await anyio.sleep(0.02 * self._rng.random() * (30 if roll > 0.97 else 1))
        return {"score": float(answer is not None and int(answer) % 2 == 0)}

    async def follow(self, task: Task) -> SimulatedEpisode:
        """Never called: no task has a verifier."""
        raise AssertionError(task)


class SimulatedPlacement:
    """Begins episodes."""

    def __init__(self, rng: Random, *, begun: set[str]) -> None:
        """*begun* is told the trace of each."""
        self._rng = rng
        self._begun = begun

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[SimulatedEpisode, None]:
        """Begin *task*, most of the time."""
        del task
        assert trace_id is not None
        self._begun.add(trace_id)
        if self._rng.random() < 0.01:
            raise EnvironmentFailed("did not start")
        await anyio.sleep(0.01 * self._rng.random())
        yield SimulatedEpisode(self._rng)
