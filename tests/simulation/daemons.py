"""The daemon of one run, over all its lives: what cuts each of them off, and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.errors import ExitCode, FencedOff, HeadMoved, leaves
from tests.simulation.clock import Clock
from tests.simulation.disk import SimulatedDisk, Unsafe
from tests.simulation.environments import SimulatedPlacement
from tests.simulation.invariants import Broken
from tests.simulation.life import End, Process
from tests.simulation.mix import Mix
from tests.simulation.network import REFUSED, SimulatedNetwork, Storm
from tests.simulation.runfile import changed
from tests.simulation.service import SimulatedService
from tests.simulation.visitor import Visitor

MINUTE = 60.0

LIVES = 1000
"""Starts of the daemon after which a run counts as one that never ends."""

FULL = ("disk is full", "No space left on device")
"""Said where there is no room, by SQLite or by the system."""

UNGRADED = "no held-out attempt was graded"
"""Said where the graders of an evaluation have failed, all of them."""

RESTARTED = frozenset(
    {ExitCode.OUTCOME_UNKNOWN, ExitCode.UNREACHABLE, ExitCode.INTERRUPTED, ExitCode.ABORTED,
     ExitCode.STATE_UNWRITABLE, ExitCode.PAUSED}
)  # fmt: skip
"""Codes after which the README says that another start goes on."""


@dataclass(slots=True, kw_only=True)
class Daemon:
    """Lives, dies and is started again until its run is over."""

    loaded: LoadedRun
    mix: Mix
    rng: Random
    clock: Clock
    service: SimulatedService
    storm: Storm
    tell: Callable[[str], None]
    waits_until: float
    """The moment of its next start, or at which it goes on by itself."""
    visitor: Visitor | None = None
    """Who comes after one of its lives."""
    alone: bool = True
    """Whether nobody else trains the model, so that it must not believe so."""
    process: Process | None = None
    codes: list[int] = field(default_factory=list)
    lives: int = 0
    kills: int = 0
    begun: set[str] = field(default_factory=set)
    """Traces of all episodes."""
    held: frozenset[int] = frozenset()
    """Groups that held a permit when its last life ended, ..."""
    promoted: int = 0
    """... and the last step by then."""
    over: bool = False
    unsafe: Unsafe = field(default_factory=Unsafe)
    """What of its store is not on the disk yet."""
    left: int = 0
    """Pieces of work or requests until this life is cut off; 0: it is not."""

    def go(self) -> None:
        """Go on until its run is over or, on a shared clock, until it waits.

        Raises:
            Broken: it ended as it must not.
        """
        if self.process is None:
            if self.clock.now < self.waits_until:
                return
            self.process = self._start()
        end = self.process.go()
        if end is None:
            self.waits_until = self.process.loop.waits_until
            return
        self.held, self.promoted = frozenset(self.process.board.begun()), self.process.board.step
        self.process = None
        self._count(end)
        self.waits_until = self.clock.now + self.rng.choice((0.5, 5.0, 60.0))
        if self.visitor is not None and not self.over and self.visitor.rng.random() < 0.7:
            # Later than any lease lasts.
            self.clock.after(2 * MINUTE, self._visited)
            self.waits_until += 3 * MINUTE

    def _visited(self) -> None:
        assert self.visitor is not None
        self.visitor.come()
        self.alone = self.alone and not self.visitor.seen

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Staleness and groups per step that it was ever given."""
        run = self.loaded.run
        return [(run.pipeline.staleness, run.rollout.groups_per_step), *filter(None, (self.mix.then,))]

    def _start(self) -> Process:
        self.lives += 1
        self.left = 1 + int(self.rng.expovariate(1 / self.mix.end_every)) if self._end else 0
        network = SimulatedNetwork(
            clock=self.clock, service=self.service, rng=Random(self.rng.random()), weather=self.mix.weather,
            storm=self.storm, tell=self.tell, at_request=self._at_request,
        )  # fmt: skip
        disk = SimulatedDisk(
            directory=self.loaded.run.directory, rng=Random(self.rng.random()), at_work=self._at_work,
            unsafe=self.unsafe,
        )  # fmt: skip
        placement = SimulatedPlacement(Random(self.rng.random()), begun=self.begun)
        loaded = (
            self.loaded if self.lives == 1 or self.mix.then is None else changed(self.loaded, *self.mix.then)
        )
        return Process(loaded, self.clock, network, disk, placement)

    @property
    def _end(self) -> str | None:
        """What cuts this life off."""
        return self.mix.ends[self.lives - 1] if self.lives <= len(self.mix.ends) else None

    def _count(self, end: End) -> None:
        self.kills += end.killed
        if end.killed:
            self.tell(f"life {self.lives} is killed")
            return
        errors = list(leaves(end.error)) if end.error else []
        said = "; ".join(map(str, errors)).replace(str(self.loaded.run.directory), "")
        self.tell(f"life {self.lives} ends with {end.code}: {said or 'done'}")
        assert end.code is not None
        self.codes.append(end.code)
        if end.left:
            raise Broken(f"{end.left} tasks or timers were left behind")
        if self.alone and any(isinstance(error, HeadMoved | FencedOff) for error in errors):
            raise Broken(f"took itself for somebody else: {said}") from end.error
        self.over = end.code in (ExitCode.DONE, ExitCode.HEAD_MOVED)
        # A person is to look at both, and finds that another start goes on.
        told = any(text in said for text in (REFUSED, UNGRADED))
        fatal = end.code in (ExitCode.RUN_FAILED, ExitCode.KEY_REFUSED) and told
        if not (self.over or fatal or end.code in RESTARTED):
            raise Broken(f"ended with code {end.code}: {said or repr(end.error)}") from end.error
        if end.code == ExitCode.STATE_UNWRITABLE and not any(text in said for text in FULL):
            raise Broken(f"does not say that the disk is full: {said}") from end.error
        if self.lives >= LIVES:
            raise Broken(f"{LIVES} lives were not enough; the last ended with {end}") from end.error

    def _strikes(self) -> bool:
        self.left -= 1
        return self.left == 0

    def _at_work(self) -> Literal["kill", "power cut"] | None:
        if self._end == "full" and self.process is not None and self._strikes():
            self.tell("the disk is full")
            self.process.disk.full = True
        if self._end == "kill" and self._strikes():
            return "kill"
        return "power cut" if self._end == "power cut" and self._strikes() else None

    def _at_request(self) -> None:
        process = self.process
        if process is None or self._end not in ("request", "signal") or not self._strikes():
            return
        # On its way, or at the service, or with the answer on its way back.
        delay_s = 3 * self.mix.weather.latency_s * self.rng.random()
        if self._end == "request":
            self.clock.after(delay_s, process.kill)
            return
        self.clock.after(delay_s, lambda: self._signal(process))
        if self.rng.random() < 0.4:
            self.clock.after(delay_s * 2, lambda: self._signal(process))

    def _signal(self, process: Process) -> None:
        if process is not self.process:
            return
        self.tell("a signal")
        if not process.loop.signal(signal.SIGTERM):
            process.kill()
