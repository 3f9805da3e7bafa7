"""What the ledger and the store add to the wall time of a step of the quickstart.

Whole runs of the real daemon on one embedded service, in turns with the store and without it. Without it,
the ledger is kept in memory, by the event loop itself and without a thread, as the daemon reads back what
it has planned; of groups and rollouts nothing is kept at all. So the difference is everything that a
person pays for: rows made, threads crossed, commits, and the disk.

The policy is left as it is, by a learning rate of nearly nothing: so all runs do the same work, and a step
is compared with the same step of the other runs. Of each the median counts, for every few steps the
service collects its garbage, which takes as long as half a step.

The store is also watched at work: the share of the time that the
training stage waits for it, which is what stands between two steps, and the share that its thread is busy.
The rows are made before it is asked, by the event loop, and are in the ratio alone.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TypeVar
from unittest.mock import patch

import anyio

from hud_orchestrator import daemon, logs
from hud_orchestrator.config.load import LoadedRun, load
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.edges import service
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Ending, Rollout, Step
from hud_orchestrator.seams import Edges
from hud_orchestrator.store import store
from hud_orchestrator.store.database import Disk, RealDisk
from hud_orchestrator.store.trajectories import Judged, Trajectories

T = TypeVar("T")

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
STEPS = 20
WARM_UP = 2
"""Steps of each run that are not counted."""
PAIRS = 12
DRAWS = 1000
"""Of as many pairs as there are, to see how far the ratio depends on which there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """What a step costs with the store, and without."""

    with_s: float
    """Wall time of a step, the median of each."""
    without_s: float
    error: float
    """Standard error of the ratio of these two: what the machine's own noise leaves open."""
    waited: float
    """Share of the time that the training stage waits for the store."""
    busy: float
    """Share of the time that the store's thread is at work."""
    cpu: float
    """Processor seconds of that thread, as a share of the time."""

    @property
    def ratio(self) -> float:
        """Of a step with the store to one without."""
        return self.with_s / self.without_s


def bookkeeping() -> Bookkeeping:
    """Measure in pairs, each in a random order."""
    logs.configure(stream=None, as_json=True, level="error")
    with tempfile.TemporaryDirectory() as directory:
        return anyio.run(_measured, Path(directory), backend_options={"use_uvloop": True})


async def _measured(directory: Path) -> Bookkeeping:
    paced = {True: list[list[float]](), False: list[list[float]]()}
    watched = WatchedDisk()
    async with service(_quickstart(directory, "served"), _made(directory / "served")) as addresses:
        await _pace(directory, "warm-up", addresses, WatchedDisk())
        for number in range(PAIRS):
            for stored in random.Random(number).sample((True, False), 2):  # noqa: S311
                name = f"run-{number}-{'with' if stored else 'without'}"
                paced[stored].append(await _pace(directory, name, addresses, watched if stored else Memory()))
    draw = random.Random(0)  # noqa: S311
    drawn = [draw.choices(range(PAIRS), k=PAIRS) for _ in range(DRAWS)]
    ratios = [
        _typical([paced[True][pair] for pair in pairs]) / _typical([paced[False][pair] for pair in pairs])
        for pairs in drawn
    ]
    return Bookkeeping(
        with_s=_typical(paced[True]),
        without_s=_typical(paced[False]),
        error=stdev(ratios),
        waited=watched.waited_s / watched.seconds,
        busy=watched.busy_s / watched.seconds,
        cpu=watched.cpu_s / watched.seconds,
    )


def _typical(runs: Sequence[Sequence[float]]) -> float:
    """Seconds of a step: of each the median of all *runs*, and the mean of that."""
    return fmean(median(same) for same in zip(*runs, strict=True))


async def _pace(directory: Path, name: str, addresses: Addresses, disk: WatchedDisk | Memory) -> list[float]:
    """Seconds of each step that counts, of a run of its own."""

    @asynccontextmanager
    async def served(_: LoadedRun, __: RunDirectory) -> AsyncGenerator[Addresses, None]:
        yield addresses

    board = Moments(disk)
    edges = Edges(service=served, disk=disk)
    trajectories = Trajectories if isinstance(disk, WatchedDisk) else Forgetful
    with patch.object(store, "Trajectories", trajectories):
        await daemon.run_daemon(_quickstart(directory, name), board=board, edges=edges)
    return [after - before for before, after in pairwise(board.moments[WARM_UP - 1 :])]


def _quickstart(directory: Path, name: str) -> LoadedRun:
    values = {
        "run.steps": STEPS, "run.state_dir": directory / name, "model.slug": name,
        "taskset.heldout": "null", "reporting.enabled": "false", "trainer.learning_rate.peak": 1e-12,
    }  # fmt: skip
    return load(QUICKSTART, overrides=[f"{key}={value}" for key, value in values.items()])


def _made(path: Path) -> RunDirectory:
    path.mkdir()
    return RunDirectory(path)


@dataclass(slots=True)
class WatchedDisk:
    """A file, and how long it takes, from the moment that it is told to count."""

    counting: bool = False
    seconds: float = 0.0
    """That were counted."""
    waited_s: float = 0.0
    busy_s: float = 0.0
    cpu_s: float = 0.0
    _disk: Disk = field(default_factory=RealDisk)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        # A limiter belongs to the thread's queue and not to the file, so each run gets its own.
        self._disk = RealDisk()
        return self._disk.open(path)

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work*, and watch."""
        began = time.perf_counter()
        try:
            return await self._disk.run(lambda: self._watched(work))
        finally:
            if self.counting and anyio.get_current_task().name == "train":
                self.waited_s += time.perf_counter() - began

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


class Moments(Scoreboard):
    """Remembers when each step was over."""

    def __init__(self, disk: WatchedDisk | Memory) -> None:
        super().__init__(total_steps=STEPS)
        self.moments: list[float] = []
        self._disk = disk

    def step_ended(self, step: Step) -> None:
        """Remember, and count from the end of the warm-up to the last step."""
        super().step_ended(step)
        self.moments.append(time.perf_counter())
        if isinstance(self._disk, WatchedDisk):
            self._disk.counting = WARM_UP <= len(self.moments) < STEPS
            if len(self.moments) == STEPS:
                self._disk.seconds += self.moments[-1] - self.moments[WARM_UP - 1]
