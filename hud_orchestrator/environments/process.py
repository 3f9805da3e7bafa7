"""One warm environment process per episode in flight, reused, and killed when it misbehaves."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import anyio

from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.warm import WarmProcess
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Task

log = get_logger()


class ProcessPool:
    """Warm processes of one source file. Use as an async context manager: leaving kills them all."""

    def __init__(self, source: Path, *, log_file: IO[bytes], recycle_after: int, teardown_s: float) -> None:
        self._source = source
        self._log_file = log_file
        self._recycle_after = recycle_after
        self._teardown_s = teardown_s
        self._idle: list[WarmProcess] = []
        self._all: set[WarmProcess] = set()
        # Starting is work for the processor; a hundred at once would only slow one another down.
        self._starting = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Together: one that does not go away must not make the others wait.
        async with anyio.create_task_group() as ending:
            for warm in list(self._all):
                ending.start_soon(self._kill, warm)

    @asynccontextmanager
    async def episode(
        self,
        task: Task,
        *,
        trace_id: str | None = None,  # noqa: ARG002  (nothing here calls elsewhere)
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task* in a warm process; leaving puts the process back, or kills it."""
        warm = self._idle.pop() if self._idle else await self._start()
        try:
            warm.episodes += 1
            start = await warm.session.call("tasks.start", env=task.env, id=task.id, args=dict(task.args))
            yield ControlEpisode(warm.session.call, start)
        finally:
            with anyio.CancelScope(shield=True):  # bounded by teardown_s and the kill inside
                await self._put_back(warm)

    async def _put_back(self, warm: WarmProcess) -> None:
        usable = warm.session.healthy and await warm.session.put_away(within_s=self._teardown_s)
        if usable and warm.episodes < self._recycle_after:
            self._idle.append(warm)
            return
        if not usable:
            log.warning(
                "environment.killed",
                pid=warm.process.pid,
                reason="it did not end its episode",
                after_s=self._teardown_s,
            )
        await self._kill(warm)

    async def _start(self) -> WarmProcess:
        async with self._starting:
            try:
                warm = await WarmProcess.start(self._source, log_file=self._log_file)
            except OSError as error:
                raise EnvironmentFailed(
                    f"an environment process cannot be started: {error.strerror}"
                ) from error
            self._all.add(warm)
            try:
                hello = await warm.session.call("hello")
            except BaseException:
                await self._kill(warm)
                raise
            log.debug("environment.started", pid=warm.process.pid, environment=hello.get("env"))
            return warm

    async def _kill(self, warm: WarmProcess) -> None:
        with anyio.CancelScope(shield=True):  # bounded inside kill()
            await warm.kill()
        self._all.discard(warm)
