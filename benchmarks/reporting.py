"""What telling a service about every attempt does to the attempts: their pace, and the time of this process.

Rollouts of one turn through a gateway that is paced to 200 ms, in turns with nobody told, and with a
service that answers, one where nobody listens and one that hangs. Ratios are medians over pairs that were
measured right after one another.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median

import anyio
from pydantic import SecretStr

from benchmarks.rollouts.ours import SOURCE
from hud_orchestrator import logs
from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.attempt import Attempter
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import Limits
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Policy, Task, Ticket
from hud_orchestrator.reporting.letters import Job
from hud_orchestrator.reporting.reporter import Terms, reporting
from hud_orchestrator.reporting.witness import Nobody, Witness
from hud_orchestrator.tasksets.files import load_path

LATENCY_S = 0.2
AT_ONCE = 40
"""A pace of 200 rollouts per second: what a reporter may cost is not hidden by a core that is full."""
EACH = 300
ROUNDS = 15
KEY = SecretStr("benchmark-key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What rollouts take while somebody is told about them."""

    who: str
    wall_ms: float
    cpu_ms: float
    pace: float
    """Rollouts per second, as a ratio to when nobody is told."""
    cpu: float
    """Processor time of this process, as such a ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One stretch of rollouts."""

    wall_ms: float
    """Per rollout."""
    cpu_ms: float
    """Of this process, per rollout."""


def told() -> list[Told]:
    """Measure nobody, and each kind of service."""
    logs.configure(stream=None, as_json=True, level="error")
    with _served(LATENCY_S) as gateway, _served(0) as fast, _hanging() as hanging:
        services = {"nobody": None, "a service": fast, "nobody listens": _dead(), "it hangs": hanging}
        return anyio.run(_measured, gateway, services, backend_options={"use_uvloop": True})


async def _measured(gateway: str, services: Mapping[str, str | None]) -> list[Told]:
    (task, *_) = load_path(SOURCE, member="single")
    paces: dict[str, list[Pace]] = {name: [] for name in services}
    await _stretch(gateway, None, task)
    for number in range(ROUNDS):
        # Another order each time, so that what else the machine does strikes all alike.
        for name in random.Random(number).sample(sorted(services), len(services)):  # noqa: S311
            paces[name].append(await _stretch(gateway, services[name], task))
    return [_told(name, paces["nobody"], found) for name, found in paces.items()]


def _told(name: str, untold: list[Pace], told: list[Pace]) -> Told:
    pairs = list(zip(untold, told, strict=True))
    return Told(
        who=name,
        wall_ms=median(one.wall_ms for one in told),
        cpu_ms=median(one.cpu_ms for one in told),
        pace=median(none.wall_ms / one.wall_ms for none, one in pairs),
        cpu=median(one.cpu_ms / none.cpu_ms for none, one in pairs),
    )


async def _stretch(gateway: str, service: str | None, task: Task) -> Pace:
    policy = PolicyCell(Policy(version=0, checkpoint=None))
    async with (
        Transport(gateway, KEY, connections=AT_ONCE + 10) as transport,
        _witness(service, policy) as witness,
    ):
        attempter = Attempter(
            placement=InProcess(SOURCE, teardown_s=2),
            agent=ChatAgent(system_prompt=None, max_turns=1),
            gateway=PacedGateway(Gateway(transport, model="bench"), most=AT_ONCE),
            policy=policy,
            sampling=Sampling(top_p=1.0, max_tokens=8, stop=(), seed=0),
            limits=Limits(deadline_s=60, grading_reserve_s=5, infrastructure_retries=0),
            dispatch=Dispatch(concurrency=AT_ONCE),
            witness=witness,
        )
        await _all(attempter, task, AT_ONCE)
        wall, cpu = time.perf_counter(), time.process_time()
        await _all(attempter, task, EACH)
        return Pace(
            wall_ms=(time.perf_counter() - wall) / EACH * 1000,
            cpu_ms=(time.process_time() - cpu) / EACH * 1000,
        )


async def _all(attempter: Attempter, task: Task, count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            rollout = await attempter.attempt(Ticket(group=number, member=0, task=task), temperature=1.0)
            if rollout.reward is None:
                raise RuntimeError(f"a rollout of the benchmark failed: {rollout.detail}")

    async with anyio.create_task_group() as crew:
        for _ in range(AT_ONCE):
            crew.start_soon(worker)


@asynccontextmanager
async def _witness(service: str | None, policy: PolicyCell) -> AsyncGenerator[Witness, None]:
    if service is None:
        yield Nobody()
        return
    terms = Terms(api_url=service, telemetry_url=service, api_key=KEY, spans="tokens", queue=1000, flush_s=1)
    job = Job(id="0" * 32, name="benchmark", group_size=1, model="bench")
    async with reporting(job, terms, policy=policy, treatments={}, counts=Counter()) as reporter:
        yield reporter


@contextmanager
def _served(latency_s: float) -> Iterator[str]:
    """A server in a process of its own, that answers everything."""
    command = [sys.executable, "-m", "benchmarks.rollouts.gateway", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def _hanging() -> Iterator[str]:
    """Connections come about, and nobody reads what they bring."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _dead() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
