"""One simulated run from one seed: its world, its deaths and restarts, and what must hold afterwards."""

from __future__ import annotations

import gc
import json
import random
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog

from hud_orchestrator import logs
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.errors import ExitCode, HeadMoved, leaves
from tests.simulation.clock import Clock
from tests.simulation.invariants import Broken, check
from tests.simulation.life import Disk, End, Process
from tests.simulation.mix import Mix
from tests.simulation.network import SimulatedNetwork
from tests.simulation.service import SimulatedService

STEPS = 20
LIVES = 1000
"""Starts of the daemon after which a run counts as one that never ends."""

RESTARTED = frozenset(
    {ExitCode.OUTCOME_UNKNOWN, ExitCode.UNREACHABLE, ExitCode.INTERRUPTED, ExitCode.ABORTED,
     ExitCode.STATE_UNWRITABLE}
)  # fmt: skip
"""Codes after which the README says that another start goes on."""

ROOT = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


@dataclass(slots=True)
class Report:
    """What happened."""

    seed: int
    lives: int = 0
    kills: int = 0
    codes: list[int] = field(default_factory=list)
    simulated_s: float = 0.0
    trace: list[str] = field(default_factory=list)
    rollouts: int = 0


def simulate(seed: int, *, steps: int = STEPS, begun: Callable[[World], None] = lambda _: None) -> Report:
    """Run one seed to its end; *begun* is given its world before.

    Raises:
        Broken: an invariant does not hold.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"sim-{seed}-", dir=ROOT))
    try:
        with _on_our_own(seed):
            world = World(seed, steps, directory)
            begun(world)
            return world.run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _on_our_own(seed: int) -> Iterator[None]:
    """Change what a process has one of, and leave it as it was: other tests share the process."""
    configured, config, state = structlog.is_configured(), structlog.get_config(), random.getstate()
    gc.freeze()  # collections after each death look at what that life made alone
    random.seed(seed)  # what the product draws without a stream of its own: the jitter of waits
    logs.configure(stream=None, as_json=True, level="error")
    try:
        yield
    finally:
        structlog.configure(**config)
        if not configured:
            structlog.reset_defaults()
        random.setstate(state)
        gc.unfreeze()


class World:
    """Everything that a seed decides: the daemon, what it talks to, and what goes wrong."""

    def __init__(self, seed: int, steps: int, directory: Path) -> None:
        self.rng = Random(seed)
        self.mix = Mix.of(self.rng)
        self.clock = Clock()
        self.service = SimulatedService(
            Random(seed + 1),
            idempotent=self.mix.idempotent,
            list_lag_s=self.mix.list_lag_s,
            gateway_lag_s=self.mix.gateway_lag_s,
        )
        self.report = Report(seed)
        self.directory = directory
        self.steps = steps
        self.loaded = _loaded(directory, seed, steps, self.mix.staleness)
        self.process: Process | None = None
        self.next_kill = self._kill_in()

    def run(self) -> Report:
        """Live, die and start again until the run is done, and check what it left.

        Raises:
            Broken: an invariant does not hold.
        """
        began = self.clock.now
        self._schedule_restart()
        while True:
            end = self._live()
            if end.code == ExitCode.DONE:
                break
            if not end.killed and end.code not in RESTARTED:
                raise Broken(f"ended with code {end.code}: {end.error!r}") from end.error
            moved = end.error and [leaf for leaf in leaves(end.error) if isinstance(leaf, HeadMoved)]
            if moved:
                raise Broken(f"took itself for somebody else: {moved[0]}") from end.error
            if self.report.lives >= LIVES:
                raise Broken(f"{LIVES} lives were not enough; the last ended with {end}") from end.error
            self.clock.now += self.rng.choice((0.5, 5.0, 60.0))
        self.report.simulated_s = self.clock.now - began
        self._check()
        return self.report

    def _live(self) -> End:
        self.report.lives += 1
        network = SimulatedNetwork(
            clock=self.clock, service=self.service, rng=Random(self.rng.random()), weather=self.mix.weather,
            tell=self._tell,
        )  # fmt: skip
        disk = Disk(
            directory=self.loaded.run.directory, rng=Random(self.rng.random()), on_commit=self._on_commit
        )
        self.process = Process(self.loaded, self.clock, network, disk, Random(self.rng.random()))
        end = self.process.live()
        if end.tasks_left:
            raise Broken(f"{end.tasks_left} tasks were left behind")
        self.report.kills += end.killed
        if end.code is not None:
            self.report.codes.append(end.code)
        self._tell(
            f"life {self.report.lives} ended: {'killed' if end.killed else end.code} {end.error or ''}"
        )
        return end

    def _on_commit(self, _: int) -> str | None:
        self.next_kill -= 1
        if self.next_kill > 0:
            return None
        self.next_kill = self._kill_in()
        return self.rng.choice(("before", "during", "after"))

    def _kill_in(self) -> float:
        every = self.mix.kill_every
        return float("inf") if every is None else 1 + self.rng.expovariate(1 / every)

    def _schedule_restart(self) -> None:
        every = self.mix.restart_every_s
        if every is None:
            return

        def restart() -> None:
            self._tell("the service restarts")
            self.service.restart()
            if self.process is not None:
                self.process.network.reset()
            self._schedule_restart()

        self.clock.after(self.rng.expovariate(1 / every), restart)

    def _tell(self, text: str) -> None:
        self.report.trace.append(f"{self.clock.now:10.3f}  {text}")

    def _check(self) -> None:
        connection = sqlite3.connect(self.loaded.run.directory / "store.db")
        connection.row_factory = sqlite3.Row
        try:
            check(connection, self.service, steps=self.steps, staleness=self.mix.staleness)
            self.report.rollouts = connection.execute("SELECT count(*) FROM rollouts").fetchone()[0]
        finally:
            connection.close()


def _loaded(directory: Path, seed: int, steps: int, staleness: int) -> LoadedRun:
    tasks = [{"env": "parity", "id": "even", "args": {"n": n}} for n in range(50)]
    (directory / "tasks.json").write_text(json.dumps(tasks))
    run = RunFile.model_validate(
        {
            "run": {"name": "it", "seed": seed, "steps": steps, "state_dir": str(directory / "state")},
            "model": {"slug": "it", "base": "base"},
            "service": "hud",
            "taskset": {"train": str(directory / "tasks.json")},
            "agent": {"max_tokens": 1},
            "rollout": {
                "group_size": 2, "groups_per_step": 2, "concurrency": 6, "deadline_s": 30,
                "grading_reserve_s": 5,
            },
            "pipeline": {"staleness": staleness},
            "trainer": {"learning_rate": {"peak": 1e-3}, "call_timeout_s": 60},
            "reporting": {"enabled": False},
        }
    )  # fmt: skip
    origins: dict[str, str] = defaultdict(lambda: "default")
    return LoadedRun(run=run, path=directory / "run.yaml", origins=origins, warnings=())
