"""One leased environment for each episode: somebody else runs it, and a tunnel leads to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import anyio
import anyio.abc

from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.machine import machine_of
from hud_orchestrator.environments.served import served_episode
from hud_orchestrator.errors import (
    EnvironmentFailed,
    OrchestratorError,
    RequestRejected,
    ServiceBusy,
    ServiceUnreachable,
)
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Task

GIVE_BACK_S = 15.0
"""For the lessor to take an environment back, as the SDK has it."""

FULFILLED = ("image", "compose", "cpu", "memory_mb")
"""What was deployed under the environment's name was made of the first two; the others are hints."""


log = get_logger()


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
        async with (
            self._leased(task.env, trace_id) as lease,
            served_episode(
                partial(self._lessor.connect, lease),
                task,
                named=f"leased environment {task.env!r}",
                pace=self._pace,
                trace_id=trace_id,
            ) as episode,
        ):
            yield episode

    @asynccontextmanager
    async def _leased(self, environment: str, trace_id: str | None) -> AsyncGenerator[str, None]:
        """A lease for the length of the block, given back after it."""
        asked = _Asked()
        try:
            await self._ask(asked, environment, trace_id)
            yield asked.had(environment)
        finally:
            if asked.lease is not None:
                await self._lessor.give_back(asked.lease, within_s=GIVE_BACK_S)

    async def _ask(self, asked: _Asked, environment: str, trace_id: str | None) -> None:
        """Wait for the answer, for a moment also when the episode is over: nobody else can give it back."""
        patience, answered = anyio.CancelScope(shield=True), anyio.Event()

        async def ask() -> None:
            with patience:
                try:
                    asked.lease = await self._lessor.lease(environment, trace_id=trace_id)
                except OrchestratorError as error:
                    asked.failure = error
            if patience.cancelled_caught:
                reason = f"its name was not told in {GIVE_BACK_S:g} s"
                log.warning("environment.not_returned", lease="unknown", reason=reason)
            answered.set()

        async with anyio.create_task_group() as group:
            group.start_soon(ask, name="lease")
            try:
                await answered.wait()
            finally:
                patience.deadline = anyio.current_time() + GIVE_BACK_S


@dataclass(slots=True)
class _Asked:
    """What became of a wish for a lease."""

    lease: str | None = None
    failure: OrchestratorError | None = None

    def had(self, environment: str) -> str:
        if self.lease is not None:
            return self.lease
        assert self.failure is not None  # there was an answer
        if isinstance(self.failure, ServiceUnreachable | ServiceBusy | RequestRejected):
            raise EnvironmentFailed(f"environment {environment!r} cannot be leased: {self.failure}")
        raise self.failure
