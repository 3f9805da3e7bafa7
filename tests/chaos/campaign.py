"""A run from its first start to its last step, while one fault after the other strikes it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from signal import SIGKILL

from hud_orchestrator.errors import ExitCode
from tests.chaos.accounts import Accounts, Fate
from tests.chaos.faults import choose
from tests.chaos.invariants import check
from tests.chaos.world import Arrangement, World

RESTARTED = frozenset({ExitCode.OUTCOME_UNKNOWN, ExitCode.UNREACHABLE, ExitCode.STATE_UNWRITABLE})
"""Codes after which the README says that another start goes on."""

FIRST_S, EACH_S = 300.0, 60.0
"""A run that takes longer than this, and this for each fault, counts as one that never ends."""

LONGEST_START_S = 60.0
"""A daemon whose service is away may not sample for a while: then the next fault strikes all the same."""

LONGEST_S = 1.5
"""From the moment that the run samples, or that it starts, to the next fault: a few steps."""

WHILE_STARTING = 0.25
"""Share of faults that strike before the run samples."""


@dataclass(slots=True)
class Report:
    """What was done to a run, and what came of it."""

    arrangement: Arrangement
    faults: Counter[str] = field(default_factory=Counter)
    mounted: bool = False
    """Whether a full disk is a small file system of its own, and not a limit on the size of files."""
    kills: int = 0
    starts: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    """By the invariants: steps, and branches that nothing builds on."""
    fates: Counter[Fate] = field(default_factory=Counter)
    """Of rollouts that were finished when the daemon died."""
    seconds: float = 0.0


def campaign(
    directory: Path, arrangement: Arrangement, *, seed: int, kills: int, steps: int, cache: Path, quick: bool
) -> Report:
    """Take a run to its last step; about *kills* processes are killed on the way.

    Raises:
        AssertionError: an invariant does not hold.
    """
    report, accounts = Report(arrangement), Accounts()
    with World(directory, arrangement, Random(seed), steps=steps, cache=cache, quick=quick) as world:
        report.mounted = world.disks["run"].mounted
        world.start_service()
        _start(world, report)
        while not _done(world, report, accounts):
            if report.kills < kills:
                _strike(world, report, accounts)
            else:
                time.sleep(0.05)
        assert world.left_over() == []
        connection = world.store()
        try:
            report.counted = check(world, connection)
            report.fates = accounts.settle(world, connection)
        finally:
            connection.close()
    report.seconds = time.monotonic() - world.began
    return report


def _start(world: World, report: Report) -> None:
    world.start_daemon()
    report.starts += 1


def _done(world: World, report: Report, accounts: Accounts) -> bool:
    """Whether the daemon has taken its last step; one that has ended in another way is started again."""
    assert world.daemon is not None
    code = world.daemon.poll()
    if code is None:
        assert time.monotonic() < _limit(world, report), f"step budget not reached:\n{world.output()}"
        return False
    report.codes[code] += 1
    if code == ExitCode.DONE:
        return True
    assert code in RESTARTED, f"ended with {code}:\n{world.output()}"
    accounts.died(world, world.graded(), cause=f"exit code {code}")
    _start(world, report)
    return False


def _strike(world: World, report: Report, accounts: Accounts) -> None:
    assert world.daemon is not None
    _wait_for_a_moment(world)
    if world.daemon.poll() is not None:
        return
    fault, graded = choose(world), world.graded()
    report.kills += fault.strike(world)
    report.faults[fault.name] += 1
    if world.daemon.poll() == -SIGKILL:
        accounts.died(world, graded, cause=fault.name)
        _start(world, report)


def _wait_for_a_moment(world: World) -> None:
    """A random moment while the daemon starts, or when it samples and trains."""
    if world.rng.random() >= WHILE_STARTING:
        until = time.monotonic() + LONGEST_START_S
        while not any(line["event"] == "run.started" for line in world.events()):
            if world.daemon is None or world.daemon.poll() is not None or time.monotonic() > until:
                break
            time.sleep(0.02)
    time.sleep(world.rng.uniform(0, LONGEST_S))


def _limit(world: World, report: Report) -> float:
    return world.began + FIRST_S + EACH_S * report.faults.total()
