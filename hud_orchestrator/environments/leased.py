"""One leased environment for each episode: somebody else runs it, and a tunnel leads to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
import anyio.abc

from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.machine import machine_of
from hud_orchestrator.environments.served import served_episode
from hud_orchestrator.errors import EnvironmentFailed, RequestRejected, ServiceBusy, ServiceUnreachable
from hud_orchestrator.records import Task

GIVE_BACK_S = 15.0
"""For the lessor to take an environment back, as the SDK has it."""

FULFILLED = ("image", "compose", "cpu", "memory_mb")
"""What was deployed under the environment's name was made of the first two; the others are hints."""


class Lessor(Protocol):
    """Who leases environments by name."""

    async def lease(self, environment: str, *, trace_id: str | None) -> str:
        """Have one started; the id of its lease."""
        ...

    async def connect(self, lease: str) -> anyio.abc.ByteStream:
        """A connection to its control port, or ``OSError``."""
        ...

    async def give_back(self, lease: str, *, within_s: float) -> None:
        """End a lease, within a bounded time."""
        ...


class Leased:
    """Runs every episode in an environment of its own, by the environment's name."""

    def __init__(self, lessor: Lessor, *, pace: Pace) -> None:
        self._lessor = lessor
        self._pace = pace

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task*; leaving gives the environment back."""
        machine_of(task, where="hud", fulfilled=FULFILLED)
        try:
            lease = await self._lessor.lease(task.env, trace_id=trace_id)
        except (ServiceUnreachable, ServiceBusy, RequestRejected) as error:
            raise EnvironmentFailed(f"environment {task.env!r} cannot be leased: {error}") from error
        try:
            async with served_episode(
                partial(self._lessor.connect, lease),
                task,
                named=f"leased environment {task.env!r}",
                pace=self._pace,
                trace_id=trace_id,
            ) as episode:
                yield episode
        finally:
            await self._lessor.give_back(lease, within_s=GIVE_BACK_S)
