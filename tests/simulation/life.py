"""One life of the daemon: from its start until it ends by itself, or is killed between two instructions.

A killed process runs nothing more: its tasks stay where they are, and what its coroutines would still do
when they are taken apart is undone, by putting the store back to what had reached the disk by then.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import SecretStr

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.daemon import run_daemon
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.errors import exit_code_of
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.seams import Edges
from tests.simulation.clock import Clock, VirtualLoop
from tests.simulation.disk import SimulatedDisk
from tests.simulation.environments import SimulatedPlacement
from tests.simulation.network import SimulatedNetwork

URL = "http://127.0.0.1:1"
ADDRESSES = Addresses(rl_url=URL, api_url=URL, gateway_url=URL, telemetry_url=URL, api_key=SecretStr("key"))

TAKING_APART = 200
"""Times that a coroutine may be asked to end before it is left to the garbage collector."""


@dataclass(frozen=True, slots=True)
class End:
    """How a life ended."""

    killed: bool
    code: int | None = None
    error: BaseException | None = None
    left: int = 0
    """Tasks and timers that were not over."""


@dataclass(slots=True)
class Process:
    """A daemon that can be killed."""

    loaded: LoadedRun
    clock: Clock
    network: SimulatedNetwork
    disk: SimulatedDisk
    rng: Random
    loop: VirtualLoop | None = None

    def kill(self) -> None:
        """End it here and now."""
        if self.loop is not None:
            self.disk.die()
            self.network.dead = True
            self.loop.stop()

    def live(self) -> End:
        """Run until it ends."""
        with _unheard():
            end = self._live()
        if end.killed:
            self.disk.put_back()
        return end

    def _live(self) -> End:
        self.loop = loop = VirtualLoop(self.clock)
        self.disk.killed = self.kill
        main = loop.create_task(self._main())
        main.add_done_callback(lambda _: loop.stop())
        try:
            loop.run_forever()
            if self.disk.dead:
                return self._buried(loop)
            left = len(asyncio.all_tasks(loop))
            error = main.exception()
            code = main.result() if error is None else int(exit_code_of(error))
            return End(killed=False, code=code, error=error, left=left)
        finally:
            self.network.dead = True
            self.loop = None
            loop.close()

    async def _main(self) -> int:
        board = Scoreboard(total_steps=self.loaded.run.run.steps)
        edges = Edges(service=self._service, placement=self._placement, network=self.network, disk=self.disk)
        return (await run_daemon(self.loaded, board=board, edges=edges)).exit_code

    @asynccontextmanager
    async def _service(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[Addresses, None]:
        yield ADDRESSES

    @asynccontextmanager
    async def _placement(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[SimulatedPlacement, None]:
        yield SimulatedPlacement(self.rng)

    def _buried(self, loop: VirtualLoop) -> End:
        """Keep what was on disk when the process died, and take it apart."""
        self.disk.keep()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _take_apart(task.get_coro())
        return End(killed=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """Say nothing of what goes wrong when coroutines are taken apart without their loop."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _take_apart(coroutine: Coroutine[Any, Any, Any] | Any) -> None:
    for _ in range(TAKING_APART):
        with suppress(BaseException):
            coroutine.close()
            return
