"""One simulated run from one seed: its world, its deaths and restarts, and what must hold afterwards."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hud_orchestrator import logs
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.errors import ExitCode, HeadMoved, leaves
from tests.simulation.clock import Clock
from tests.simulation.life import Disk, End, Process
from tests.simulation.network import SimulatedNetwork, Weather
from tests.simulation.service import SimulatedService, Slug

STEPS = 20
LIVES = 400
"""Starts of the daemon after which a run counts as one that never ends."""

RESTARTED = frozenset({ExitCode.OUTCOME_UNKNOWN, ExitCode.UNREACHABLE, ExitCode.RUN_FAILED, ExitCode.INTERRUPTED,
                       ExitCode.ABORTED, ExitCode.STATE_UNWRITABLE})  # fmt: skip

ROOT = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class Broken(AssertionError):
    """An invariant does not hold."""


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


@dataclass(slots=True)
class Mix:
    """The faults of one seed."""

    weather: Weather
    kill_every: float | None
    """Mean number of commits between two deaths."""
    restart_every_s: float | None
    """Mean seconds between two restarts of the service."""
    idempotent: bool
    list_lag_s: float
    gateway_lag_s: float
    staleness: int

    @classmethod
    def of(cls, rng: Random) -> Mix:
        """Some seeds are calm in most ways; some are not."""

        def some(largest: float) -> float:
            return largest * rng.random() if rng.random() < 0.4 else 0.0

        return cls(
            weather=Weather(
                refused=some(0.05),
                lost_request=some(0.04),
                lost_answer=some(0.06),
                failed_before=some(0.08),
                failed_after=some(0.06),
                duplicated=some(0.05),
                slow=some(0.03),
                latency_s=rng.choice((0.01, 0.05, 0.5)),
            ),
            kill_every=rng.choice((None, 40.0, 150.0, 15.0)),
            restart_every_s=rng.choice((None, None, 20.0, 100.0)),
            # A service that is sent a call twice does it twice, unless it looks at the id.
            idempotent=rng.random() < 0.7,
            list_lag_s=rng.choice((0.0, 0.0, 2.0, 20.0)),
            gateway_lag_s=rng.choice((0.0, 0.0, 1.0, 5.0)),
            staleness=rng.choice((0, 0, 1, 2)),
        )


def simulate(seed: int, *, steps: int = STEPS) -> Report:
    """Run one seed to its end.

    Raises:
        Broken: an invariant does not hold.
    """
    random.seed(seed)  # what the product draws without a stream of its own: the jitter of waits
    directory = Path(tempfile.mkdtemp(prefix=f"sim-{seed}-", dir=ROOT))
    try:
        return _World(seed, steps, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _World:
    def __init__(self, seed: int, steps: int, directory: Path) -> None:
        self.rng = Random(seed)
        self.mix = Mix.of(self.rng)
        if not self.mix.idempotent:
            self.mix.weather = Weather(
                **{name: getattr(self.mix.weather, name) for name in Weather.__slots__} | {"duplicated": 0.0}
            )
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
        began = self.clock.now
        logs.configure(stream=None, as_json=True, level="error")
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


def check(connection: sqlite3.Connection, service: SimulatedService, *, steps: int, staleness: int) -> None:
    """Hold the store against what the service knows to be true."""
    slug_name = connection.execute("SELECT value FROM meta WHERE key = 'slug'").fetchone()[0]
    slug = next(one for one in service.slugs.values() if one.name == slug_name)
    over = connection.execute(
        "SELECT * FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number"
    ).fetchall()
    _must([row["number"] for row in over] == list(range(1, steps + 1)), "steps are 1 to the last, each once")
    applied = [row for row in over if row["state"] == "applied"]
    chain = _chain(slug)
    _must([node.id for node in chain] == [row["checkpoint"] for row in applied], "history is the ledger's")
    stray = {node.id for node in slug.nodes} - {node.id for node in chain}
    _must(not stray, f"nodes beside the history: {stray}")
    traces: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(
        "SELECT g.step, r.trace_id, r.version_min FROM rollouts r JOIN groups g ON g.number = r.group_number"
        " WHERE g.ending = 'trained'"
    ):
        traces[row["step"]].append(row["trace_id"])
        _must(row["step"] - 1 - row["version_min"] <= staleness, "nothing too old was trained on")
    for row, node in zip(applied, chain, strict=True):
        wanted = sorted(traces[row["number"]])
        _must(set(node.traces) <= set(wanted), f"step {row['number']} took a gradient of something else")
        _must(len(set(node.traces)) == len(node.traces), f"step {row['number']} took a gradient twice")
        groups = set(json.loads(row["groups"]))
        ended = {
            one["number"]
            for one in connection.execute(
                "SELECT number FROM groups WHERE step = ? AND ending = 'trained'", (row["number"],)
            )
        }
        _must(groups == ended, f"step {row['number']}: its groups ended with it")
    _must(not connection.execute("SELECT 1 FROM steps WHERE state = 'planned'").fetchall(), "no step is open")


def _chain(slug: Slug) -> list[Any]:
    nodes = {node.id: node for node in slug.nodes}
    chain, at = [], slug.head
    while at is not None:
        chain.append(nodes[at])
        at = nodes[at].parent
    return chain[::-1]


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


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


if __name__ == "__main__":
    import sys
    import time
    import traceback

    first, count = int(sys.argv[1]), int(sys.argv[2])
    began, bad = time.perf_counter(), 0
    lives = kills = 0
    for number in range(first, first + count):
        try:
            told = simulate(number)
            lives += told.lives
            kills += told.kills
        except Exception as error:
            bad += 1
            print(f"seed {number}: {type(error).__name__}: {str(error)[:300]}")
            if count == 1:
                traceback.print_exc()
    took = time.perf_counter() - began
    print(f"{count} runs, {bad} broken, {lives} lives, {kills} kills, {count / took * 60:.0f} runs a minute")
