"""Attempt the same tasks with every candidate, one candidate after the other, in the same environments."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from hud_orchestrator.assembly import make_agent, make_attempter, make_hosted_attempter
from hud_orchestrator.attempt import Attempts
from hud_orchestrator.cli.evaluate.candidates import Candidate
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
from hud_orchestrator.reporting.witness import Nobody

Told = Callable[[Candidate, Rollout], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of all attempts of one candidate."""

    candidate: Candidate
    rollouts: tuple[Rollout, ...]
    """In the order of the tasks, and of the attempts at each."""
    seconds: float


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
            attempts = attempts_of(candidate)
            measured.append(
                await _measure(loaded.run.rollout.group_size, candidate, attempts, tasks, loaded, told)
            )
    return measured


async def _attempts(
    stack: AsyncExitStack, loaded: LoadedRun, addresses: Addresses
) -> Callable[[Candidate], Attempts]:
    """What attempts tasks with a candidate: here, or on the platform."""
    run, most = loaded.run, loaded.run.rollout.concurrency
    hosted = placement_of(run, loaded.resolve) == HOSTED
    url = addresses.api_url if hosted else addresses.gateway_url
    transport = await stack.enter_async_context(Transport(url, addresses.api_key, connections=most + 10))

    def on_the_platform(candidate: Candidate) -> Attempts:
        return make_hosted_attempter(
            run,
            transport,
            _versions(candidate),
            Dispatch(concurrency=most),
            model=candidate.slug,
            checkpoint=_pinned(candidate),
        )

    if hosted:
        return on_the_platform
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hud-orchestrate-eval-")))
    placed = await stack.enter_async_context(placement(loaded, RunDirectory(place)))

    def here(candidate: Candidate) -> Attempts:
        gateway = Gateway(transport, model=candidate.slug, checkpoint=_pinned(candidate))
        return make_attempter(
            run,
            placed,
            make_agent(run, loaded.path.parent),
            PacedGateway(gateway, most=most),
            _versions(candidate),
            Dispatch(concurrency=most),
            Nobody(),
        )

    return here


def _versions(candidate: Candidate) -> PolicyCell:
    return PolicyCell(Policy(version=0, checkpoint=candidate.checkpoint))


def _pinned(candidate: Candidate) -> str | None:
    return candidate.checkpoint if candidate.pinned else None


async def _measure(
    group: int,
    candidate: Candidate,
    attempts: Attempts,
    tasks: Sequence[Task],
    loaded: LoadedRun,
    told: Told,
) -> Measured:
    began = anyio.current_time()
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
    return Measured(
        candidate=candidate,
        rollouts=tuple(done[index] for index in range(len(tickets))),
        seconds=anyio.current_time() - began,
    )
