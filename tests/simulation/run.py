"""One simulated run from one seed: its world, its deaths and restarts, and what must hold afterwards."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.errors import ExitCode, HeadMoved, leaves
from tests.simulation.alone import on_our_own
from tests.simulation.clock import Clock
from tests.simulation.disk import SimulatedDisk
from tests.simulation.invariants import Broken, check
from tests.simulation.life import End, Process
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

TASKS = json.dumps([{"env": "parity", "id": "even", "args": {"n": n}} for n in range(8)])

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
    place = Path(tempfile.mkdtemp(prefix=f"sim-{seed}-", dir=ROOT))
    try:
        world = World(seed, steps, place)
        begun(world)
        with on_our_own(seed, world.clock):
            return world.run()
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
        self.loaded = _loaded(directory, seed, steps, self.mix)
        self.process: Process | None = None
        self.deaths_left = self.mix.deaths
        self.death = Death(kind="work", after=0)

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
        self._doom()
        network = SimulatedNetwork(
            clock=self.clock, service=self.service, rng=Random(self.rng.random()), weather=self.mix.weather,
            tell=self._tell, at_request=self._at_request,
        )  # fmt: skip
        disk = SimulatedDisk(
            directory=self.loaded.run.directory, rng=Random(self.rng.random()), at_work=self._at_work
        )
        self.process = Process(self.loaded, self.clock, network, disk, Random(self.rng.random()))
        end = self.process.live()
        if end.left:
            raise Broken(f"{end.left} tasks were left behind")
        self.report.kills += end.killed
        if end.code is not None:
            self.report.codes.append(end.code)
        self._tell(
            f"life {self.report.lives} ended: {'killed' if end.killed else end.code} {end.error or ''}"
        )
        return end

    def _doom(self) -> None:
        """Decide when the life that begins is cut off."""
        kind, after = self.rng.choice(("work", "work", "request")), 0
        if self.deaths_left:
            self.deaths_left -= 1
            after = 1 + int(self.rng.expovariate(1 / self.mix.death_every))
        self.death = Death(kind=kind, after=after)

    def _at_work(self) -> str | None:
        return self.rng.choice(("before", "during", "after")) if self.death.strikes("work") else None

    def _at_request(self) -> None:
        if self.death.strikes("request") and self.process is not None:
            # On its way, or at the service, or with the answer on its way back.
            self.clock.after(3 * self.mix.weather.latency_s * self.rng.random(), self.process.kill)

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


@dataclass(slots=True)
class Death:
    """When a life is cut off: at a piece of the store's work or after a request; 0: it is not."""

    kind: str
    after: int

    def strikes(self, kind: str) -> bool:
        """Count one of *kind*; whether it is the last one."""
        if kind != self.kind or self.after == 0:
            return False
        self.after -= 1
        return self.after == 0


def _loaded(directory: Path, seed: int, steps: int, mix: Mix) -> LoadedRun:
    (directory / "tasks.json").write_text(TASKS)
    run = _run_file(steps, mix.staleness, mix.groups_per_step)
    source = run.taskset.train[0].model_copy(update={"source": str(directory / "tasks.json")})
    run = run.model_copy(
        update={
            "run": run.run.model_copy(update={"seed": seed, "state_dir": directory / "state"}),
            "taskset": run.taskset.model_copy(update={"train": (source,)}),
        }
    )
    origins: dict[str, str] = defaultdict(lambda: "default")
    return LoadedRun(run=run, path=directory / "run.yaml", origins=origins, warnings=())


@lru_cache
def _run_file(steps: int, staleness: int, groups_per_step: int) -> RunFile:
    return RunFile.model_validate(
        {
            "run": {"name": "it", "steps": steps},
            "model": {"slug": "it", "base": "base"},
            "service": "hud",
            "taskset": {"train": "tasks.json"},
            "agent": {"max_tokens": 1},
            "rollout": {
                "group_size": 2, "groups_per_step": groups_per_step, "concurrency": 6, "deadline_s": 30,
                "grading_reserve_s": 5,
            },
            "pipeline": {"staleness": staleness},
            "trainer": {"learning_rate": {"peak": 1e-3}, "call_timeout_s": 60},
            "reporting": {"enabled": False},
        }
    )  # fmt: skip
