"""What the ledger and the store add to the wall time of a step of the quickstart.

Two runs of the real daemon on one embedded service take turns: a step of the one, then the same step of the
other. In one of the two, by chance, the step is done with the store, and in the other without it: then the
ledger is kept in memory, as the daemon reads back what it has planned, and nothing is waited for; of groups
and rollouts nothing is kept at all. What the one ledger has noted, the other is told when the clock of the
step has stopped, as neither takes a step that does not follow the last one. So the difference is everything
that a person pays for: rows made, commits, the disk, and a thread where one is needed.

It is the quickstart as it is, with what it reports of each rollout, but without evaluations on the way.
Both runs do the same work, token for token: their policy is left as it is, by a learning rate of nearly
nothing. What the machine does meanwhile they share, as they are half a second apart; and as each of them has
the store in half of the steps, it does not count if one of them is slower for as long as it lives. Pairs
differ by a tenth either way, and some by far more: so the ratio is the estimate by Hodges and Lehmann, the
median of the means of any two pairs, which far ones move no more than they move a median, and which is nearly
as exact as a mean. Whether launches differ by more than the error of one of them takes several to tell.

The store is also watched at work: the share of the time that a step waits for it, which is when the last of
its rollouts is written and whenever the training stage asks for something, the share that it is busy, and the
share in which rows are made for it before it is asked. Busy and making rows is all that it does: the two
together are known far more exactly than the ratio, and should be in its error.
"""

from __future__ import annotations

import math
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any, TypeVar, cast
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
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.disk import Disk, RealDisk
from hud_orchestrator.store.journal import Journal
from hud_orchestrator.store.trajectories import Judged, Trajectories

T = TypeVar("T")

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
RUNS = ("one", "other")
WITH, WITHOUT = "with", "without"
STEPS = 500
STATEMENTS = ("INSERT INTO steps", "UPDATE steps", "INSERT INTO calls", "UPDATE calls")
"""Of the ledger, by how they begin."""
WARM_UP = 10
"""Steps of each run that are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """What a step costs with the store, and without."""

    with_s: float
    """Mean wall time of a step."""
    without_s: float
    ratio: float
    """Of the one to the other, by pairs."""
    error: float
    """Standard error of that."""
    quartiles: tuple[float, float]
    """Of the ratios of the pairs."""
    waited: float
    """Share of the time that a step waits for the store."""
    busy: float
    """Share of the time that the store is at work."""
    cpu: float
    """Processor seconds of that, as a share of the time."""
    rows: float
    """Share of the time in which rows are made for it."""


def bookkeeping() -> Bookkeeping:
    """Measure in pairs, each in a random order."""
    logs.configure(stream=None, as_json=True, level="error")
    with tempfile.TemporaryDirectory() as directory, quiet_heap():
        return anyio.run(_measured, Path(directory), backend_options={"use_uvloop": True})


async def _measured(directory: Path) -> Bookkeeping:
    turns = Turns()
    stores = {name: SomeSteps(name, turns) for name in RUNS}

    def trajectories(database: Database) -> Trajectories:
        return Forgetful(database, stores[database.path.parent.name])

    (directory / "service").mkdir()
    async with service(_quickstart(directory, "service"), RunDirectory(directory / "service")) as addresses:
        with patch.object(store, "Trajectories", trajectories):
            async with anyio.create_task_group() as both:
                for name in RUNS:
                    both.start_soon(_run, directory, name, addresses, stores[name], turns)
    pairs = list(zip(turns.seconds[WITH][WARM_UP:], turns.seconds[WITHOUT][WARM_UP:], strict=True))
    watched = [stores[name].watched for name in RUNS]
    ratios = [one / other for one, other in pairs]
    ratio, error = hodges_lehmann(ratios)
    lower, _, upper = quantiles(ratios, n=4)
    return Bookkeeping(
        with_s=fmean(one for one, _ in pairs),
        without_s=fmean(other for _, other in pairs),
        ratio=ratio,
        error=error,
        quartiles=(lower, upper),
        waited=sum(one.waited_s for one in watched) / sum(one.seconds for one in watched),
        busy=sum(one.busy_s for one in watched) / sum(one.seconds for one in watched),
        cpu=sum(one.cpu_s for one in watched) / sum(one.seconds for one in watched),
        rows=sum(one.rows_s for one in watched) / sum(one.seconds for one in watched),
    )


def hodges_lehmann(ratios: Sequence[float]) -> tuple[float, float]:
    """What *ratios* lie around, and its standard error.

    The median of the means of any two of their logarithms (Hodges and Lehmann, 1963, "Estimates of location
    based on rank tests"). Its error is half the interval that Wilcoxon's signed ranks give at one standard
    deviation: so many of the ordered means to either side.
    """
    logs, many = [math.log(ratio) for ratio in ratios], len(ratios)
    means = sorted((one + other) / 2 for one, other in combinations_with_replacement(logs, 2))
    aside = math.sqrt(many * (many + 1) * (2 * many + 1) / 24)
    low, high = (math.exp(means[round((len(means) - 1) / 2 + side)]) for side in (-aside, aside))
    return math.exp(median(means)), (high - low) / 2


async def _run(directory: Path, name: str, addresses: Addresses, disk: SomeSteps, turns: Turns) -> None:
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
        raise RuntimeError(f"run {name} ended with {summary.exit_code}: {summary}")


def _quickstart(directory: Path, name: str) -> LoadedRun:
    values = {
        "run.steps": STEPS, "run.state_dir": directory / name, "model.slug": name,
        "taskset.heldout": "null", "trainer.learning_rate.peak": 1e-12,
    }  # fmt: skip
    return load(QUICKSTART, overrides=[f"{key}={value}" for key, value in values.items()])


class Turns:
    """Two runs take a step each, one after the other; chance decides who is first, and who has a store."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {WITH: [], WITHOUT: []}
        """Of every turn."""
        self.keeps = ""
        """The run that has a store in the step that is in hand."""
        self._chance = random.Random(0)  # noqa: S311
        self._next: list[str] = []
        self._changed = anyio.Event()
        self._give()

    async def wait(self, name: str) -> None:
        """Wait for the turn of *name*."""
        while self._whose != name:
            await self._changed.wait()

    def over(self, name: str, *, tidy: Callable[[], None]) -> float:
        """The turn of *name* is over, *tidy* is done before the next one; the seconds that it took."""
        seconds = time.perf_counter() - self._since
        self.seconds[WITH if name == self.keeps else WITHOUT].append(seconds)
        tidy()
        self._give()
        return seconds

    def _give(self) -> None:
        if not self._next:
            self._next = self._chance.sample(RUNS, 2)
            self.keeps = self._chance.choice(RUNS)
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

    def __init__(self, name: str, turns: Turns, disk: SomeSteps) -> None:
        super().__init__(total_steps=STEPS)
        self._name = name
        self._turns = turns
        self._disk = disk

    def step_ended(self, step: Step) -> None:
        """Let the other one take its step."""
        super().step_ended(step)
        kept, watched = self._disk.keeps, self._disk.watched
        seconds = self._turns.over(self._name, tidy=self._disk.tell_the_other)
        if kept and watched.counting:
            watched.seconds += seconds
        watched.counting = step.number >= WARM_UP


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
    rows_s: float = 0.0
    makes_rows_since: float | None = None
    _disk: Disk = field(default_factory=RealDisk)

    def open(self, path: Path) -> sqlite3.Connection:
        """Open or create the file."""
        return self._disk.open(path)

    def journal(self, path: Path) -> Journal:
        """Open or create a journal."""
        return self._disk.journal(path)

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*, and watch."""
        began, stage = time.perf_counter(), anyio.get_current_task().name
        if self.makes_rows_since is not None and self.counting:
            self.rows_s += began - self.makes_rows_since
        self.makes_rows_since = None
        try:
            return await self._disk.run(lambda: self._watched(work), quick=quick)
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


class SomeSteps:
    """A file in the steps of a run that have a store; in the others no file, no thread, and no waiting."""

    def __init__(self, name: str, turns: Turns) -> None:
        self.watched = WatchedDisk()
        self._name = name
        self._turns = turns
        self._both: Either

    @property
    def keeps(self) -> bool:
        """Whether the step in hand has a store."""
        return self._turns.keeps == self._name

    def open(self, path: Path) -> sqlite3.Connection:
        """Both of them."""
        memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._both = Either(self, self.watched.open(path), memory)
        return cast("sqlite3.Connection", self._both)

    def journal(self, path: Path) -> Journal:
        """Of what the steps with a store note."""
        return self.watched.journal(path)

    def tell_the_other(self) -> None:
        """Tell the one that the step in hand does not have what the other has noted of steps."""
        self._both.tell_the_other()

    async def run(self, work: Callable[[], T], *, quick: bool) -> T:
        """Run *work*, at once if there is nothing to wait for."""
        return await self.watched.run(work, quick=quick) if self.keeps else work()


class Either:
    """The connection that the step in hand has; what is set for one is set for both."""

    def __init__(self, steps: SomeSteps, file: sqlite3.Connection, memory: sqlite3.Connection) -> None:
        self.__dict__.update(_steps=steps, _file=file, _memory=memory, _noted=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file if self._steps.keeps else self._memory, name)

    def __setattr__(self, name: str, value: object) -> None:
        for connection in (self._file, self._memory):
            setattr(connection, name, value)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run a statement."""
        file: sqlite3.Connection = self._file
        memory: sqlite3.Connection = self._memory
        if sql.startswith("PRAGMA"):
            memory.execute(sql, *parameters)
            return file.execute(sql, *parameters)
        if sql.startswith(STATEMENTS):
            self._noted.append((sql, *parameters))
        return (file if self._steps.keeps else memory).execute(sql, *parameters)

    def tell_the_other(self) -> None:
        """Repeat what was noted of steps and calls in the connection that the step in hand has not."""
        other: sqlite3.Connection = self._memory if self._steps.keeps else self._file
        other.execute("BEGIN IMMEDIATE")
        for sql, *parameters in self._noted:
            other.execute(sql, *parameters)
        other.execute("COMMIT")
        self._noted.clear()

    def executescript(self, sql: str) -> None:
        """Make the tables of both."""
        for connection in (self._file, self._memory):
            connection.executescript(sql)

    def close(self) -> None:
        """Close both."""
        for connection in (self._file, self._memory):
            connection.close()


class Forgetful(Trajectories):
    """Keeps nothing of a step that has no store."""

    def __init__(self, database: Database, steps: SomeSteps) -> None:
        super().__init__(database)
        self._steps = steps

    async def keep(self, rollouts: Sequence[Rollout], *, groups: Sequence[Judged] = ()) -> None:
        """Keep or forget them."""
        if self._steps.keeps:
            self._steps.watched.makes_rows_since = time.perf_counter()
            await super().keep(rollouts, groups=groups)
            self._steps.watched.makes_rows_since = None

    async def end(self, number: int, *, ending: Ending, step: int | None) -> None:
        """Say how a group ended, if it is there."""
        if self._steps.keeps:
            await super().end(number, ending=ending, step=step)
