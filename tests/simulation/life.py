"""One life of the daemon: from its start until it ends by itself, or is killed between two instructions.

A killed process runs nothing more: its tasks stay where they are, and what its coroutines would still do
when they are taken apart is undone, by putting the store back to what had reached the disk by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
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
    placement: SimulatedPlacement
    board: Scoreboard = field(init=False)
    loop: VirtualLoop = field(init=False)
    main: asyncio.Task[int] = field(init=False)

    def __post_init__(self) -> None:
        self.board = Scoreboard(total_steps=self.loaded.run.run.steps)
        self.loop = VirtualLoop(self.clock)
        self.disk.killed = self.kill
        self.main = self.loop.create_task(self._main())
        self.main.add_done_callback(lambda _: self.loop.stop())

    def kill(self) -> None:
        """End it here and now."""
        self.disk.die()
        self.network.dead = True
        self.loop.stop()

    def go(self) -> End | None:
        """Run until it ends, or, on a shared clock, until it waits."""
        if not self.disk.dead:
            self.loop.run_forever()
        if not self.disk.dead and not self.main.done():
            return None
        try:
            return self._buried() if self.disk.dead else self._ended()
        finally:
            self.network.dead = True
            self.loop.close()

    def _ended(self) -> End:
        error = self.main.exception()
        code = self.main.result() if error is None else int(exit_code_of(error))
        left = len(asyncio.all_tasks(self.loop)) + self.loop.timers
        return End(killed=False, code=code, error=error, left=left)

    def _buried(self) -> End:
        """Keep what was on disk when the process died, and take it apart."""
        self.disk.keep()
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _take_apart(task.get_coro())
        self.disk.put_back()
        return End(killed=True)

    async def _main(self) -> int:
        edges = Edges(service=self._service, placement=self._placement, network=self.network, disk=self.disk)
        return (await run_daemon(self.loaded, board=self.board, edges=edges)).exit_code

    @asynccontextmanager
    async def _service(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[Addresses, None]:
        yield ADDRESSES

    @asynccontextmanager
    async def _placement(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[SimulatedPlacement, None]:
        yield self.placement


def _take_apart(coroutine: Coroutine[Any, Any, Any] | Any) -> None:
    for _ in range(TAKING_APART):
        with suppress(BaseException):
            coroutine.close()
            return
