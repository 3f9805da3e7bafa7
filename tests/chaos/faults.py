"""What is done to a run: each fault by its name, how often it is chosen, and how it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, SIGSTOP

from tests.chaos.processes import gone, send
from tests.chaos.world import GONE_S, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to go wrong."""

    name: str
    weight: int
    strike: Callable[[World], int]
    """Does it, and returns how many processes it has killed."""
    arrangements: tuple[str, ...] = ("embedded", "apart")


def choose(world: World) -> Fault:
    """A fault for *world*, by its own dice."""
    possible = [fault for fault in FAULTS if world.arrangement in fault.arrangements]
    return world.rng.choices(possible, [fault.weight for fault in possible])[0]


def kill_daemon(world: World) -> int:
    """End the daemon."""
    assert world.daemon is not None
    killed = send(world.daemon, SIGKILL)
    gone(world.daemon, within_s=GONE_S)
    return killed


def kill_service(world: World) -> int:
    """End the service, and start it again after a while: at once, or when some calls have been refused."""
    if world.service is None:
        return _signal_child(world, SIGKILL)
    assert world.port is not None
    closed = world.rng.random() < 0.5
    killed = send(world.service, SIGKILL)
    gone(world.service, within_s=GONE_S)
    # A service that has ended refuses connections; what stands in front of it takes them and has no answer.
    if closed:
        world.port.close()
    time.sleep(world.rng.choice((0.0, 0.3, 1.5)))
    world.start_service()
    world.port.open()
    return killed


def kill_both(world: World) -> int:
    """End both at one moment."""
    assert world.daemon is not None
    killed_service = _signal_child(world, SIGKILL) if world.service is None else send(world.service, SIGKILL)
    killed = killed_service + kill_daemon(world)
    if world.service is not None:
        gone(world.service, within_s=GONE_S)
        world.start_service()
    return killed


def pause_daemon(world: World) -> int:
    """Stop the daemon for a while."""
    assert world.daemon is not None
    send(world.daemon, SIGSTOP)
    time.sleep(world.rng.uniform(0.1, 3))
    send(world.daemon, SIGCONT)
    return 0


def pause_and_kill_daemon(world: World) -> int:
    """Stop the daemon while its service goes on, and end it then."""
    assert world.daemon is not None
    send(world.daemon, SIGSTOP)
    time.sleep(world.rng.uniform(0.1, 1))
    return kill_daemon(world)


def pause_service(world: World) -> int:
    """Stop the service, perhaps for longer than calls wait for their answers."""
    _stop_service(world, world.rng.uniform(0.1, 4))
    if world.service is None:
        _signal_child(world, SIGCONT)
    else:
        send(world.service, SIGCONT)
    return 0


def pause_and_kill_service(world: World) -> int:
    """Stop the service with requests in hand, and end it then."""
    _stop_service(world, world.rng.uniform(0.1, 3))
    return kill_service(world)


def close_port(world: World) -> int:
    """Break every connection, and refuse new ones for a while."""
    assert world.port is not None
    world.port.close()
    time.sleep(world.rng.uniform(0.1, 2))
    world.port.open()
    return 0


def fill_disk_of_run(world: World) -> int:
    """Leave no room for the store for a while."""
    assert world.daemon is not None
    return _fill(world, "run", [world.daemon.pid])


def fill_disk_of_service(world: World) -> int:
    """Leave no room for checkpoints for a while."""
    assert world.service is not None
    return _fill(world, "service", [world.service.pid])


def _fill(world: World, which: str, processes: list[int]) -> int:
    world.disks[which].fill(processes)
    time.sleep(world.rng.uniform(0.1, 2))
    world.disks[which].free()
    return 0


def _stop_service(world: World, seconds: float) -> None:
    if world.service is None:
        _signal_child(world, SIGSTOP)
    else:
        send(world.service, SIGSTOP)
    time.sleep(seconds)


def _signal_child(world: World, number: int) -> int:
    child = world.child()
    if child is None:
        return 0
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return 0
    return 1


APART = ("apart",)

FAULTS = (
    Fault(name="daemon: SIGKILL", weight=30, strike=kill_daemon),
    Fault(name="daemon: SIGSTOP, then SIGCONT", weight=4, strike=pause_daemon),
    Fault(name="daemon: SIGSTOP, then SIGKILL", weight=5, strike=pause_and_kill_daemon),
    Fault(name="service: SIGKILL", weight=24, strike=kill_service),
    Fault(name="service: SIGSTOP, then SIGCONT", weight=8, strike=pause_service),
    Fault(name="service: SIGSTOP, then SIGKILL", weight=5, strike=pause_and_kill_service),
    Fault(name="both: SIGKILL", weight=8, strike=kill_both),
    Fault(name="port closed", weight=7, strike=close_port, arrangements=APART),
    Fault(name="disk full for the run", weight=5, strike=fill_disk_of_run),
    Fault(name="disk full for the service", weight=5, strike=fill_disk_of_service, arrangements=APART),
)
