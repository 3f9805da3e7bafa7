"""One simulated run from one seed: its world, its deaths and restarts, and what must hold afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.simulation.alone import on_our_own
from tests.simulation.clock import Clock
from tests.simulation.daemons import Daemon
from tests.simulation.invariants import Broken, check
from tests.simulation.mix import Mix
from tests.simulation.network import Storm
from tests.simulation.runfile import loaded_run
from tests.simulation.service import SimulatedService
from tests.simulation.visitor import Visitor

STEPS = 20

STORM_S = 20.0
"""Mean seconds of a storm."""

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


def simulate(seed: int, *, steps: int = STEPS, begun: Callable[[World], None] = lambda _: None) -> Report:
    """Run one seed to its end; *begun* is given its world before.

    Raises:
        Broken: an invariant does not hold.
    """
    place = Path(tempfile.mkdtemp(prefix=f"sim-{seed}-", dir=ROOT))
    files = _open_files()
    try:
        world = World(seed, steps, place)
        begun(world)
        with on_our_own(seed, world.clock):
            report = world.run()
        del world
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if _open_files() > files:
        raise Broken("files were left open")
    return report


class World:
    """Everything that a seed decides: the daemons, what they talk to, and what goes wrong."""

    def __init__(self, seed: int, steps: int, directory: Path) -> None:
        self.rng = Random(seed)
        self.mix = Mix.of(self.rng)
        self.clock = Clock(shared=self.mix.rival)
        self.service = SimulatedService(
            Random(seed + 1),
            idempotent=self.mix.idempotent,
            counts=self.mix.counts,
            rates=self.mix.rates,
            leases=self.mix.leases,
            list_lag_s=self.mix.list_lag_s,
            gateway_lag_s=self.mix.gateway_lag_s,
        )
        self.service.mute = lambda _: self.mix.mute > 0 and self.rng.random() < self.mix.mute
        self.storm = Storm()
        self.report = Report(seed)
        self.steps = steps
        self.daemons = [self._daemon(directory / "one", seed, self.clock.now)]
        if self.mix.rival:
            begins_at = self.clock.now + 60 * self.rng.random() ** 3
            self.daemons.append(self._daemon(directory / "two", seed + 1, begins_at))

    def run(self) -> Report:
        """Live, die and start again until every run is over, and check what they left.

        Raises:
            Broken: an invariant does not hold.
        """
        began = self.clock.now
        self._repeat(self.mix.restart_every_s, self._restart)
        self._repeat(self.mix.storm_every_s, self._storm)
        self._repeat(self.mix.set_clock_every_s, self._set_clock)
        while going := [daemon for daemon in self.daemons if not daemon.over]:
            for daemon in going:
                daemon.go()
            until = min((one.waits_until for one in going if not one.over), default=self.clock.now)
            if until > self.clock.now:
                self.clock.advance(until)
        self.report.simulated_s = self.clock.now - began
        for daemon in self.daemons:
            self.report.lives += daemon.lives
            self.report.kills += daemon.kills
            self.report.codes += daemon.codes
        check(self.daemons, self.service, steps=self.steps)
        return self.report

    def _daemon(self, directory: Path, seed: int, begins_at: float) -> Daemon:
        visitor = Visitor(rng=Random(seed + 2), clock=self.clock, service=self.service, tell=self._tell)
        return Daemon(
            visitor=visitor if self.mix.visited else None,
            loaded=loaded_run(directory, seed, self.steps, self.mix),
            mix=self.mix,
            rng=Random(self.rng.random()),
            clock=self.clock,
            service=self.service,
            storm=self.storm,
            tell=lambda text: self._tell(f"{directory.name}  {text}"),
            waits_until=begins_at,
            alone=not self.mix.rival,
        )

    def _repeat(self, every_s: float | None, happen: Callable[[], None]) -> None:
        if every_s is None:
            return

        def again() -> None:
            happen()
            self._repeat(every_s, happen)

        self.clock.after(self.rng.expovariate(1 / every_s), again)

    def _restart(self) -> None:
        self._tell("the service restarts")
        self.service.restart(self.clock.now)
        for daemon in self.daemons:
            if daemon.process is not None:
                daemon.process.network.reset()

    def _storm(self) -> None:
        if self.storm.fate is not None:
            return
        self._tell(f"a storm: {self.storm.begin(self.rng)}")
        if self.storm.fate == "refused" and self.mix.restart_every_s is not None:
            self._restart()
        self.clock.after(min(self.rng.expovariate(1 / STORM_S), 10 * STORM_S), self._calm)

    def _calm(self) -> None:
        self._tell("the storm is over")
        self.storm.fate = None

    def _set_clock(self) -> None:
        self.clock.ahead_s = self.rng.choice((-86400.0, -60.0, 0.0, 60.0, 86400.0))
        self._tell(f"the clock is set {self.clock.ahead_s:+g} s from where it was")

    def _tell(self, text: str) -> None:
        self.report.trace.append(f"{self.clock.now:10.3f}  {text}")


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
