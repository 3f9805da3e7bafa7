"""One life of the daemon: from its start until it ends by itself, or is killed between two instructions.

A killed process runs nothing more: its tasks stay where they are, and what its coroutines would still do
when they are taken apart is undone, by putting the store back to what had reached the disk by then.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from pydantic import SecretStr

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.daemon import run_daemon
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.errors import StateUnwritable, exit_code_of
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.seams import Edges
from tests.simulation.clock import Clock, VirtualLoop
from tests.simulation.environments import SimulatedPlacement
from tests.simulation.network import SimulatedNetwork

T = TypeVar("T")

WAL = "store.db-wal"
TAKING_APART = 200
"""Times that a coroutine may be asked to end before it is left to the garbage collector."""


@dataclass(slots=True)
class Disk:
    """Runs the store's SQL at once, and knows what of it is on disk."""

    directory: Path
    rng: Random
    full: Callable[[], bool] = lambda: False
    on_commit: Callable[[int], str | None] = lambda _: None
    """Called before each piece of work with its number; ``before``, ``during`` or ``after`` kills there."""
    count: int = 0
    dead: bool = False
    stop: Callable[[], None] = lambda: None
    synced: int = 0
    """Bytes of the write-ahead log that have reached the disk."""
    torn: int = 0
    """Bytes of it that survive the death, when that came in the middle of a commit."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Run *work*, unless the process dies before, or while its commit is written."""
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        self.count += 1
        when = self.on_commit(self.count)
        if when == "before":
            return await self._die(self._wal_size())
        if self.full():
            raise StateUnwritable(f"{self.directory}: the disk is full")
        before = self._wal_size()
        result = work()
        after = self._wal_size()
        if when == "during":
            return await self._die(before + int((after - before) * self.rng.random()))
        if when == "after":
            return await self._die(after)
        return result

    async def _die(self, survives: int) -> Any:
        self.torn = survives
        self.dead = True
        self.stop()
        await asyncio.Event().wait()

    def _wal_size(self) -> int:
        try:
            return (self.directory / WAL).stat().st_size
        except FileNotFoundError:
            return 0


@dataclass(frozen=True, slots=True)
class End:
    """How a life ended."""

    killed: bool
    code: int | None = None
    error: BaseException | None = None
    tasks_left: int = 0


@dataclass(slots=True)
class Process:
    """A daemon that can be killed."""

    loaded: LoadedRun
    clock: Clock
    network: SimulatedNetwork
    disk: Disk
    rng: Random
    loop: VirtualLoop | None = None

    @property
    def _kept(self) -> Path:
        return self.disk.directory.with_name(self.disk.directory.name + ".kept")

    def kill(self) -> None:
        """End it here and now."""
        if not self.disk.dead:
            self.disk.torn = self.disk._wal_size()
            self.disk.dead = True
        self.network.dead = True
        assert self.loop is not None
        self.loop.stop()

    def live(self) -> End:
        """Run until it ends."""
        with _unheard():
            end = self._live()
            # What the dead process held ends here, and not in the middle of the next one's life.
            self.loop = None
            gc.collect()
        if end.killed:
            self._put_back()
        return end

    def _live(self) -> End:
        self.loop = VirtualLoop(self.clock)
        self.disk.stop = self.kill
        main = self.loop.create_task(self._main())
        main.add_done_callback(self._stop)
        try:
            self.loop.run_forever()
            if self.disk.dead:
                return self._buried()
            left = asyncio.all_tasks(self.loop)
            error = main.exception()
            code = main.result() if error is None else int(exit_code_of(error))
            return End(killed=False, code=code, error=error, tasks_left=len(left))
        finally:
            self.network.dead = True
            self.loop.close()

    def _stop(self, _: object) -> None:
        if self.loop is not None:
            self.loop.stop()

    async def _main(self) -> int:
        board = Scoreboard(total_steps=self.loaded.run.run.steps)
        edges = Edges(service=self._service, placement=self._placement, network=self.network, disk=self.disk)
        return (await run_daemon(self.loaded, board=board, edges=edges)).exit_code

    @asynccontextmanager
    async def _service(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[Addresses, None]:
        url = "http://127.0.0.1:1"
        yield Addresses(rl_url=url, api_url=url, gateway_url=url, telemetry_url=url, api_key=SecretStr("key"))

    @asynccontextmanager
    async def _placement(self, _: LoadedRun, __: RunDirectory) -> AsyncGenerator[SimulatedPlacement, None]:
        yield SimulatedPlacement(self.rng)

    def _buried(self) -> End:
        """Keep what was on disk when the process died, and take it apart."""
        assert self.loop is not None
        directory, kept = self.disk.directory, self._kept
        kept.mkdir(exist_ok=True)
        for path in directory.glob("store.db*"):
            if path.suffix != ".db-shm":
                shutil.copy(path, kept / path.name)
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _take_apart(task.get_coro())
        return End(killed=True)

    def _put_back(self) -> None:
        directory, kept = self.disk.directory, self._kept
        for path in directory.glob("store.db*"):
            path.unlink()
        for path in kept.iterdir():
            shutil.move(path, directory / path.name)
        wal = directory / WAL
        if wal.exists():
            with wal.open("r+b") as file:
                file.truncate(self.disk.torn)


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
