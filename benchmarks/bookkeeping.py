"""What the ledger and the store add to the wall time of a step of the quickstart.

Two runs of the real daemon on one embedded service, with the store and without it, that take turns: a step of
the one, then the same step of the other. Without it, the ledger is kept in memory, by the event loop itself
and without a thread, as the daemon reads back what it has planned; of groups and rollouts nothing is kept at
all. So the difference is everything that a person pays for: rows made, threads crossed, commits, the disk.

Both runs do the same work, token for token: their policy is left as it is, by a learning rate of nearly
nothing. What the machine does meanwhile they share, as they are half a second apart. The service's collection
of garbage takes half a step every few steps: so of the ratios of all pairs the median counts. Launches differ
by more than the standard error of one of them: a few percent take several.

The store is also watched at work: the share of the time that a step waits for it, which is when the last of
its rollouts is written and whenever the training stage asks for something, and the share that its thread is
busy. The rows are made before it is asked, by the event loop, and are in the ratio alone.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from typing import TypeVar
from unittest.mock import patch

import anyio

from hud_orchestrator import daemon, logs
from hud_orchestrator.config.load import LoadedRun, load
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.edges import service
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.environments.protocol import Episode, Placement
from hud_orchestrator.heap import quiet_heap
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.placements import placement
from hud_orchestrator.records import Ending, Rollout, Step, Task
from hud_orchestrator.seams import Edges
from hud_orchestrator.store import store
from hud_orchestrator.store.database import Database, Disk, RealDisk
from hud_orchestrator.store.trajectories import Judged, Trajectories

T = TypeVar("T")

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
WITH, WITHOUT = "with", "without"
STEPS = 250
WARM_UP = 10
"""Steps of each run that are not counted."""
DRAWS = 1000
"""Of as many pairs as there are, to see how far the median depends on which there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """What a step costs with the store, and without."""

    with_s: float
    """Mean wall time of a step."""
    without_s: float
    ratios: tuple[float, float, float]
    """Of the one to the other, in pairs: lower quartile, median, upper."""
    error: float
    """Standard error of that median."""
    waited: float
    """Share of the time that a step waits for the store."""
    busy: float
    """Share of the time that the store's thread is at work."""
    cpu: float
    """Processor seconds of that thread, as a share of the time."""


def bookkeeping() -> Bookkeeping:
    """Measure in pairs, each in a random order."""
    logs.configure(stream=None, as_json=True, level="error")
    with tempfile.TemporaryDirectory() as directory, quiet_heap():
        return anyio.run(_measured, Path(directory), backend_options={"use_uvloop": True})


async def _measured(directory: Path) -> Bookkeeping:
    turns, watched = Turns(), WatchedDisk()
    disks: dict[str, Disk] = {WITH: watched, WITHOUT: Memory()}

    def trajectories(database: Database) -> Trajectories:
        return Trajectories(database) if database.path.parent.name == WITH else Forgetful(database)

    (directory / "service").mkdir()
    async with service(_quickstart(directory, "service"), RunDirectory(directory / "service")) as addresses:
        with patch.object(store, "Trajectories", trajectories):
            async with anyio.create_task_group() as both:
                for name, disk in disks.items():
                    both.start_soon(_run, directory, name, addresses, disk, turns)
    pairs = list(zip(turns.seconds[WITH][WARM_UP:], turns.seconds[WITHOUT][WARM_UP:], strict=True))
    ratios = [one / other for one, other in pairs]
    lower, middle, upper = quantiles(ratios, n=4)
    draw = random.Random(0)  # noqa: S311
    return Bookkeeping(
        with_s=fmean(one for one, _ in pairs),
        without_s=fmean(other for _, other in pairs),
        ratios=(lower, middle, upper),
        error=stdev(median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS)),
        waited=watched.waited_s / watched.seconds,
        busy=watched.busy_s / watched.seconds,
        cpu=watched.cpu_s / watched.seconds,
    )


async def _run(directory: Path, name: str, addresses: Addresses, disk: Disk, turns: Turns) -> None:
    @asynccontextmanager
    async def served(_: LoadedRun, __: RunDirectory) -> AsyncGenerator[Addresses, None]:
        yield addresses

    @asynccontextmanager
    async def placed(loaded: LoadedRun, at: RunDirectory) -> AsyncGenerator[Placement, None]:
        async with placement(loaded, at) as inner:
            yield InTurn(inner, partial(turns.wait, name))

    board = Paced(name, turns, disk)
    edges = Edges(service=served, disk=disk, placement=placed)
    summary = await daemon.run_daemon(_quickstart(directory, name), board=board, edges=edges)
    if summary.exit_code:
        raise RuntimeError(f"the run {name} the store ended with {summary.exit_code}: {summary}")


def _quickstart(directory: Path, name: str) -> LoadedRun:
    values = {
        "run.steps": STEPS, "run.state_dir": directory / name, "model.slug": name,
        "taskset.heldout": "null", "reporting.enabled": "false", "trainer.learning_rate.peak": 1e-12,
    }  # fmt: skip
    return load(QUICKSTART, overrides=[f"{key}={value}" for key, value in values.items()])


class Turns:
    """Two runs take a step each, one after the other, in an order that chance decides every time."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {WITH: [], WITHOUT: []}
        """Of every turn."""
        self._chance = random.Random(0)  # noqa: S311
        self._next: list[str] = []
        self._changed = anyio.Event()
        self._give()

    async def wait(self, name: str) -> None:
        """Wait for the turn of *name*."""
        while self._whose != name:
            await self._changed.wait()

    def over(self, name: str) -> None:
        """The turn of *name* is over."""
        self.seconds[name].append(time.perf_counter() - self._since)
        self._give()

    def _give(self) -> None:
        self._next = self._next or self._chance.sample((WITH, WITHOUT), 2)
        self._whose, self._since = self._next.pop(), time.perf_counter()
        self._changed.set()
        self._changed = anyio.Event()


@dataclass(frozen=True, slots=True)
class InTurn:
    """Begins no episode before its turn."""

    inner: Placement
    turn: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def episode(self, task: Task, *, trace_id: str | None = None) -> AsyncGenerator[Episode, None]:
        """Begin a task when it may."""
        await self.turn()
        async with self.inner.episode(task, trace_id=trace_id) as episode:
            yield episode


class Paced(Scoreboard):
    """Ends a turn when a step is over, and lets the store be watched in the turns that count."""

    def __init__(self, name: str, turns: Turns, disk: Disk) -> None:
        super().__init__(total_steps=STEPS)
        self._name = name
        self._turns = turns
        self._disk = disk

    def step_ended(self, step: Step) -> None:
        """Let the other one take its step."""
        super().step_ended(step)
        self._turns.over(self._name)
        if isinstance(self._disk, WatchedDisk):
            if self._disk.counting:
                self._disk.seconds += self._turns.seconds[self._name][-1]
            self._disk.counting = step.number >= WARM_UP


@dataclass(slots=True)
class WatchedDisk:
    """A file, and how long it takes, from the moment that it is told to count."""

    counting: bool = False
    seconds: float = 0.0
    """That were counted."""
    waited_s: float = 0.0
    written_s: float = 0.0
    """How long the newest rollouts took; the batch that they fill has waited for them."""
    busy_s: float = 0.0
    cpu_s: float = 0.0
    _disk: Disk = field(default_factory=RealDisk)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        return self._disk.open(path)

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work*, and watch."""
        began, stage = time.perf_counter(), anyio.get_current_task().name
        try:
            return await self._disk.run(lambda: self._watched(work))
        finally:
            took_s = time.perf_counter() - began
            if stage == "collect":
                self.written_s = took_s
            elif stage == "train" and self.counting:
                self.waited_s += took_s + self.written_s
                self.written_s = 0.0

    def _watched(self, work: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            if self.counting:
                self.busy_s += time.perf_counter() - wall
                self.cpu_s += time.thread_time() - cpu


class Memory:
    """No file, no thread, and nothing that waits."""

    def open(self, path: Path) -> sqlite3.Connection:  # noqa: ARG002  (there is none)
        """A store that is gone with the run."""
        return sqlite3.connect(":memory:", isolation_level=None)

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work* at once."""
        return work()


class Forgetful(Trajectories):
    """Keeps nothing."""

    async def keep(self, rollouts: Sequence[Rollout], *, groups: Sequence[Judged] = ()) -> None:
        """Forget them."""

    async def end(self, number: int, *, ending: Ending, step: int | None) -> None:
        """There is nothing that could end."""
