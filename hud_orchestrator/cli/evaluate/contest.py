"""Attempt the same tasks with every candidate, one candidate after the other, in the same environments.

The service is told of every candidate's attempts as of a job of its own: a job has one model.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import anyio

from hud_orchestrator.assembly import make_agent, make_attempter, make_hosted_attempter
from hud_orchestrator.attempt import Attempts
from hud_orchestrator.cli.evaluate.candidates import Candidate
from hud_orchestrator.cli.evaluate.own_directory import own_directory
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.placement import HOSTED, placement_of
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.placements import placement
from hud_orchestrator.records import Policy, Rollout, Task, Ticket
from hud_orchestrator.reporting.letters import Job
from hud_orchestrator.reporting.witness import Nobody, Witness
from hud_orchestrator.tasksets.rows import common_taskset
from hud_orchestrator.telling import tells, witness_of

Told = Callable[[Candidate, Rollout], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of all attempts of one candidate."""

    candidate: Candidate
    rollouts: tuple[Rollout, ...]
    """In the order of the tasks, and of the attempts at each."""
    seconds: float
    job_id: str | None
    """Of the job that the service was told of, ``None`` when the user wants nothing told."""
    reports: Counter[str]
    """How many of the attempts were ``reported`` and ``dropped``."""


async def contest(
    loaded: LoadedRun,
    addresses: Addresses,
    contestants: Sequence[Candidate],
    tasks: Sequence[Task],
    *,
    told: Told,
) -> list[Measured]:
    """Attempt every task with every candidate; *told* hears of each attempt as it ends.

    Every candidate samples with the same seeds.

    Raises:
        KeyRefused: the gateway refuses the key.
        ConfigError: the environments cannot be placed.
    """
    measured = list[Measured]()
    async with AsyncExitStack() as stack:
        attempts_of = await _attempts(stack, loaded, addresses)
        for candidate in contestants:
            job, counts = _job(loaded, addresses, candidate, tasks), Counter[str]()
            versions = PolicyCell(Policy(version=0, checkpoint=candidate.checkpoint))
            async with _witness(job, loaded, addresses, versions, counts) as witness:
                attempts = attempts_of(candidate, versions, witness, job)
                rollouts, seconds = await _measure(candidate, attempts, tasks, loaded, told)
            measured.append(
                Measured(
                    candidate=candidate,
                    rollouts=rollouts,
                    seconds=seconds,
                    job_id=None if job is None else job.id,
                    reports=counts,
                )
            )
    return measured


def _job(loaded: LoadedRun, addresses: Addresses, candidate: Candidate, tasks: Sequence[Task]) -> Job | None:
    run = loaded.run
    if not tells(run, addresses):
        return None
    return Job(
        id=uuid.uuid4().hex,
        name=f"eval {run.taskset.train[0].source} {candidate.label}",
        group_size=run.rollout.group_size,
        model=candidate.slug,
        taskset_id=common_taskset(tasks),
    )


@asynccontextmanager
async def _witness(
    job: Job | None, loaded: LoadedRun, addresses: Addresses, versions: PolicyCell, counts: Counter[str]
) -> AsyncGenerator[Witness, None]:
    if job is None:
        yield Nobody()
        return
    async with witness_of(job, loaded.run, addresses, versions, counts) as told:
        yield told


async def _attempts(
    stack: AsyncExitStack, loaded: LoadedRun, addresses: Addresses
) -> Callable[[Candidate, PolicyCell, Witness, Job | None], Attempts]:
    """What attempts tasks with a candidate: here, or on the platform."""
    run, most = loaded.run, loaded.run.rollout.concurrency
    hosted = placement_of(run, loaded.resolve) == HOSTED
    url = addresses.api_url if hosted else addresses.gateway_url
    transport = await stack.enter_async_context(Transport(url, addresses.api_key, connections=most + 10))

    def on_the_platform(
        candidate: Candidate,
        versions: PolicyCell,
        _: Witness,  # the platform itself reports what runs there
        job: Job | None,
    ) -> Attempts:
        return make_hosted_attempter(
            run,
            transport,
            versions,
            Dispatch(concurrency=most),
            model=candidate.slug,
            checkpoint=_pinned(candidate),
            job_id=None if job is None else job.id,
        )

    if hosted:
        return on_the_platform
    place = stack.enter_context(own_directory(placement_of(run, loaded.resolve)))
    placed = await stack.enter_async_context(placement(loaded, RunDirectory(place)))

    def here(candidate: Candidate, versions: PolicyCell, witness: Witness, _: Job | None) -> Attempts:
        gateway = Gateway(transport, model=candidate.slug, checkpoint=_pinned(candidate))
        return make_attempter(
            run,
            placed,
            make_agent(run, loaded.path.parent),
            PacedGateway(gateway, most=most),
            versions,
            Dispatch(concurrency=most),
            witness,
        )

    return here


def _pinned(candidate: Candidate) -> str | None:
    return candidate.checkpoint if candidate.pinned else None


async def _measure(
    candidate: Candidate, attempts: Attempts, tasks: Sequence[Task], loaded: LoadedRun, told: Told
) -> tuple[tuple[Rollout, ...], float]:
    """What became of every attempt, and the seconds that they took together."""
    began, group = anyio.current_time(), loaded.run.rollout.group_size
    tickets = [
        Ticket(group=number, member=member, task=task, purpose="eval", members=group)
        for number, task in enumerate(tasks)
        for member in range(group)
    ]
    done: dict[int, Rollout] = {}

    async def one(index: int) -> None:
        attempted = await attempts.attempt(tickets[index], temperature=loaded.run.agent.temperature)
        # What was sampled is for training, and nothing is trained here.
        done[index] = replace(attempted, samples=())
        told(candidate, attempted)

    async with anyio.create_task_group() as crew:
        for index in range(len(tickets)):
            crew.start_soon(one, index)
    return tuple(done[index] for index in range(len(tickets))), anyio.current_time() - began
