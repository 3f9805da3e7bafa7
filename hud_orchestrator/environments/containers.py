"""A container for each episode, through the ``docker`` package, and nothing of it left behind.

    create -> start -> its port on loopback -> control protocol -> remove, with its volumes

The package blocks, so its calls run in threads. A thread cannot be cut off: a call that hangs is left
to its own timeout when the episode ends, and its container is found again by a name that was chosen
before. What slips through, and what a killed daemon has left, is found by its label. A pull has no timeout:
it goes on for whoever asks next, in a thread that nobody waits for when the program ends.
"""

from __future__ import annotations

import asyncio
import math
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.abc
import anyio.to_thread

from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.engine import Engine
from hud_orchestrator.environments.link import Dial, Pace
from hud_orchestrator.environments.machine import Machine, machine_of
from hud_orchestrator.environments.served import served_episode
from hud_orchestrator.errors import EnvironmentFailed, EnvironmentLost
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Task

T = TypeVar("T")
P = TypeVarTuple("P")

REMOVE_S = 30.0
"""For the engine to remove a container: it kills at once, and then has files to delete."""

SWEEP_S = 60.0
"""For it to remove all that are left."""

THREADS = 32
"""Calls of the engine at once."""

FULFILLED = ("image", "cpu", "memory_mb", "gpu", "startup_timeout_s", "run_timeout_s")

log = get_logger()


class Containers:
    """Runs every episode in a container of its own. Use as an async context manager."""

    def __init__(
        self, engine: Engine, *, image: str | None, port: int, environ: Mapping[str, str], pace: Pace
    ) -> None:
        """Run *image*, or what a row's ``runtime_config`` names.

        Args:
            engine: what runs containers.
            image: for rows that name none.
            port: the control port inside.
            environ: variables that every container gets.
            pace: of the control protocol; a row's ``startup_timeout_s`` comes before ``ready_s``.
        """
        self._engine = engine
        self._image = image
        self._port = port
        self._environ = dict(environ)
        self._pace = pace
        self._threads = anyio.CapacityLimiter(THREADS)
        self._pulls: dict[str, asyncio.Future[None]] = {}

    async def __aenter__(self) -> Self:
        await self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._sweep()
        self._engine.close()

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task* in a new container; leaving removes it."""
        machine = machine_of(task, where="docker", fulfilled=FULFILLED)
        image = machine.image or self._image
        if image is None:
            raise EnvironmentFailed(
                f"task {task.slug!r} names no image, and runtime.image is not set; set one of them"
            )
        name = f"hud-{task.env[:20]}-{uuid.uuid4().hex[:12]}"
        limits = machine.limits
        pace = replace(self._pace, ready_s=limits.startup_timeout_s or self._pace.ready_s)
        # Before its run begins, which has a limit: whoever is the first to want an image waits for it.
        await self._pull(image)
        try:
            with anyio.move_on_after(limits.run_timeout_s or math.inf) as running:
                await self._start(name, image, machine)
                async with served_episode(
                    self._dialling(name), task, named=f"container of {image}", pace=pace, trace_id=trace_id
                ) as episode:
                    yield episode
            if running.cancelled_caught:
                over = f"its run_timeout_s, {limits.run_timeout_s} s, is over"
                raise EnvironmentLost(f"task {task.slug!r}: {over}")
        finally:
            await self._remove(name)

    async def _pull(self, image: str) -> None:
        # One pull for all that wait for it, also when those that began to have lost patience.
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _in_a_daemon_thread(partial(self._engine.pull, image))
            pull.add_done_callback(lambda _: self._pulls.pop(image))
        await asyncio.shield(pull)

    async def _start(self, name: str, image: str, machine: Machine) -> None:
        await self._call(
            partial(self._engine.start, port=self._port, environ=self._environ), name, image, machine
        )

    def _dialling(self, name: str) -> Dial:
        async def dial() -> anyio.abc.ByteStream:
            port = await self._call(self._engine.published, name, self._port)
            return await anyio.connect_tcp("127.0.0.1", port)

        return dial

    async def _remove(self, name: str) -> None:
        with anyio.move_on_after(REMOVE_S, shield=True) as patience:
            try:
                await self._call(self._engine.remove, name)
            except EnvironmentFailed as error:
                log.warning("container.left", name=name, reason=str(error))
        if patience.cancelled_caught:
            log.warning("container.left", name=name, reason=f"not removed in {REMOVE_S:g} s")

    async def _sweep(self) -> None:
        """Remove what is left of this run, of a killed one before it too."""
        with anyio.move_on_after(SWEEP_S, shield=True) as patience:
            try:
                left = await self._call(self._engine.left)
            except EnvironmentFailed as error:
                log.warning("container.left", name="all", reason=str(error))
                return
            async with anyio.create_task_group() as group:
                for name in left:
                    group.start_soon(self._remove, name)
        if patience.cancelled_caught:
            log.warning("container.left", name="all", reason=f"not swept in {SWEEP_S:g} s")

    async def _call(self, function: Callable[[Unpack[P]], T], *args: *P) -> T:
        return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._threads)


def _in_a_daemon_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """What becomes of *call*, in a thread that does not keep the program from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(outcome.set_result, call())
        except Exception as error:
            settle = partial(outcome.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, daemon=True).start()
    return outcome
