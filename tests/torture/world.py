"""Attempts in a small world: a gateway of the test's own, real environment processes, and what is left."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretStr

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.protocol import Agent
from hud_orchestrator.attempt import Attempter
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import Limits
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Policy, Rollout, Task, Ticket
from hud_orchestrator.reporting.witness import Witness
from tests.torture.gateway import paced_gateway

CRUEL = Path(__file__).with_name("cruel.py")

TEARDOWN_S = 1.0


def cruel(
    template: str = "cruel", env: str = "cruel", *, patience_s: float | None = None, **args: Any
) -> Task:
    """A task of the cruel environment; *patience_s* is its agent's timeout."""
    return Task(env=env, id=template, args=args, slug=template, agent_timeout_s=patience_s)


@asynccontextmanager
async def pool(log: Path, source: Path = CRUEL) -> AsyncGenerator[ProcessPool, None]:
    """Warm processes of the cruel environment."""
    with log.open("wb") as log_file:
        async with ProcessPool(source, log_file=log_file, recycle_after=50, teardown_s=TEARDOWN_S) as found:
            yield found


@asynccontextmanager
async def attempter(
    placement: Placement,
    limits: Limits,
    *,
    concurrency: int = 64,
    agent: Agent | None = None,
    witness: Witness | None = None,
) -> AsyncGenerator[Attempter, None]:
    """Attempts with the paced gateway."""
    async with paced_gateway() as url, Transport(url, SecretStr("k"), connections=concurrency) as transport:
        yield Attempter(
            placement=placement,
            agent=agent or ChatAgent(system_prompt=None, max_turns=2),
            gateway=PacedGateway(Gateway(transport, model="m"), most=concurrency),
            policy=PolicyCell(Policy(version=0, checkpoint=None)),
            sampling=Sampling(top_p=1, max_tokens=1, stop=(), seed=0),
            limits=limits,
            dispatch=Dispatch(concurrency=concurrency),
            witness=witness,
        )


async def attempt_all(attempts: Attempter, tickets: Sequence[Ticket]) -> list[Rollout]:
    """All of them at once, as many as there are slots."""
    done: dict[int, Rollout] = {}

    async def one(index: int, ticket: Ticket) -> None:
        done[index] = await attempts.attempt(ticket, temperature=1)

    async with anyio.create_task_group() as group:
        for index, ticket in enumerate(tickets):
            group.start_soon(one, index, ticket)
    return [done[index] for index in range(len(tickets))]


@dataclass(frozen=True, slots=True)
class Left:
    """What there is of this process, and of those it started."""

    processes: frozenset[str]
    descriptors: int
    tasks: int
    threads: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls, temporary: Path) -> Left:
        """Look."""
        return cls(
            processes=processes_in(temporary),
            descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            tasks=len(asyncio.all_tasks()),
            # anyio keeps its idle ones for the next call, as a pool does.
            threads=frozenset(t.name for t in threading.enumerate() if "AnyIO worker" not in t.name),
            files=frozenset(str(path) for path in temporary.rglob("*")),
        )


def processes_in(temporary: Path) -> frozenset[str]:
    """Environment processes, and those that they started: they have their files in *temporary*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            surroundings = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={temporary}".encode() in surroundings:
            found.append(f"{entry.name} {words}")
    return frozenset(found)
