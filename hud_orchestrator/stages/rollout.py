"""Tickets become rollouts: workers that attempt one ticket after the other."""

from __future__ import annotations

from anyio import create_task_group
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.attempt import Attempts
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Rollout, Ticket
from hud_orchestrator.streams import offer

log = get_logger()


async def rollout(
    tickets: MemoryObjectReceiveStream[Ticket],
    rollouts: MemoryObjectSendStream[Rollout],
    *,
    attempter: Attempts,
    temperature: float,
    workers: int,
    board: Scoreboard,
) -> None:
    """Attempt tickets; every one yields exactly one rollout.

    There is a worker for every ticket that permits allow: what waits for a fragile environment, or for
    one that is broken, holds up no other. How many run at once is up to the attempter.
    """
    async with tickets, rollouts, create_task_group() as crew:
        for index in range(workers):
            crew.start_soon(
                _work,
                tickets.clone(),
                rollouts.clone(),
                attempter,
                temperature,
                board,
                name=f"rollout-{index}",
            )


async def _work(
    tickets: MemoryObjectReceiveStream[Ticket],
    rollouts: MemoryObjectSendStream[Rollout],
    attempter: Attempts,
    temperature: float,
    board: Scoreboard,
) -> None:
    async with tickets, rollouts:
        async for ticket in tickets:
            attempted = await attempter.attempt(ticket, temperature=temperature)
            board.rollout_ended(attempted)
            if attempted.reward is None:
                log.warning(
                    "rollout.failed",
                    group=ticket.group,
                    member=ticket.member,
                    outcome=attempted.outcome,
                    reason=attempted.detail,
                )
            if not await offer(rollouts, attempted):
                return
