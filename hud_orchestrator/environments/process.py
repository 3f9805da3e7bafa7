"""One warm environment process per episode in flight, reused, and killed when it misbehaves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from types import TracebackType
from typing import IO, Self

import anyio
import anyio.abc

from hud_orchestrator.environments.control import ControlEpisode, ControlSession
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Task

HOST = "hud_orchestrator.environments.host"

KEY = "HUD_API_KEY"
"""Stays with the daemon: what an environment knows, it may print."""

log = get_logger()


class WarmProcess:
    """An environment process and the session with it."""

    def __init__(self, process: anyio.abc.Process, stream: anyio.abc.SocketStream) -> None:
        self.process = process
        self.stream = stream
        self.session = ControlSession(stream)
        self.episodes = 0

    async def kill(self) -> None:
        """End it and everything it started; does not wait for long, because nothing survives the signal."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with anyio.move_on_after(2, shield=True):
            await self.process.wait()
            await self.stream.aclose()


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
        for warm in list(self._all):
            await self._kill(warm)

    @asynccontextmanager
    async def episode(
        self,
        task: Task,
        *,
        trace_id: str | None = None,  # noqa: ARG002  (nothing here calls elsewhere)
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task* in a warm process; leaving puts the process back, or kills it."""
        warm = self._idle.pop() if self._idle else await self._start()
        finished = False
        try:
            yield await self._begin(warm, task)
            finished = warm.session.healthy
        finally:
            with anyio.CancelScope(shield=True):  # bounded by teardown_s inside
                await self._put_back(warm, finished=finished)

    async def _begin(self, warm: WarmProcess, task: Task) -> ControlEpisode:
        warm.episodes += 1
        start = await warm.session.call("tasks.start", env=task.env, id=task.id, args=dict(task.args))
        return ControlEpisode(warm.session.call, start)

    async def _put_back(self, warm: WarmProcess, *, finished: bool) -> None:
        usable = finished or (
            warm.session.healthy and await warm.session.cancelled(within_s=self._teardown_s)
        )
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
        try:
            return await self._started()
        except OSError as error:
            raise EnvironmentFailed(f"an environment process cannot be started: {error.strerror}") from error

    async def _started(self) -> WarmProcess:
        async with self._starting:
            ours, theirs = socket.socketpair()
            with theirs:
                process = await anyio.open_process(
                    [sys.executable, "-m", HOST, str(self._source), str(theirs.fileno())],
                    stdin=DEVNULL, stdout=self._log_file, stderr=self._log_file,
                    pass_fds=[theirs.fileno()], start_new_session=True, cwd=self._source.parent,
                    env={name: value for name, value in os.environ.items() if name != KEY},
                )  # fmt: skip
            warm = WarmProcess(process, await anyio.abc.SocketStream.from_socket(ours))
            self._all.add(warm)
            try:
                hello = await warm.session.call("hello")
            except BaseException:
                await self._kill(warm)
                raise
            log.debug("environment.started", pid=process.pid, environment=hello.get("env"))
            return warm

    async def _kill(self, warm: WarmProcess) -> None:
        with anyio.CancelScope(shield=True):  # bounded inside kill()
            await warm.kill()
        self._all.discard(warm)
