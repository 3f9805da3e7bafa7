"""The time of a group and the pauses of dispatch, on a virtual clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from hud_orchestrator.attempt import Attempts
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.ladder import Ladder, Limits
from hud_orchestrator.records import Outcome, Rollout, Ticket
from hud_orchestrator.rules.breaker import BreakerRule
from tests.builders import rollout
from tests.simulation.clock import Clock, VirtualLoop

RULE = BreakerRule(window=8, least=4, probes=1, pause_s=100, longest_pause_s=200, give_up_after_s=10_000)
LIMITS = Limits(deadline_s=100, grading_reserve_s=5, infrastructure_retries=1, group_s=60)


@dataclass
class Outage:
    """Attempts of 10 s each, which all fail from one moment to another."""

    begins: float
    ends: float
    becomes: Outcome = Outcome.LOST
    ladders: list[tuple[float, Ladder]] = field(default_factory=list)
    """Of the attempts that went well, and when each began."""


class Attempted(Attempts):
    def __init__(self, outage: Outage) -> None:
        super().__init__(limits=LIMITS, dispatch=Dispatch(concurrency=64, rule=RULE))
        self._outage = outage
        self._began = anyio.current_time()

    async def once(self, ticket: Ticket, ladder: Ladder, *, attempt: int, temperature: float) -> Rollout:
        began = anyio.current_time()
        with anyio.move_on_at(ladder.until):
            await anyio.sleep(10)
            if not self._outage.begins <= anyio.current_time() - self._began < self._outage.ends:
                self._outage.ladders.append((began, ladder))
                return rollout(member=ticket.member)
        return rollout(member=ticket.member, outcome=self._outage.becomes, reward=None, tokens=0)


def members(group: int, count: int, *, env: str = "sums") -> list[Ticket]:
    task = replace(rollout().ticket.task, env=env)
    return [Ticket(group=group, member=member, task=task, members=count) for member in range(count)]


def in_no_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(Clock())) as runner:
        runner.run(work())


async def attempt_all(attempts: Attempts, tickets: list[Ticket]) -> list[Outcome]:
    done: dict[int, Outcome] = {}

    async def one(ticket: Ticket) -> None:
        done[ticket.member] = (await attempts.attempt(ticket, temperature=1)).outcome

    async with anyio.create_task_group() as crowd:
        for ticket in tickets:
            crowd.start_soon(one, ticket)
    return [done[ticket.member] for ticket in tickets]


def test_a_group_that_an_outage_of_any_length_finds_in_flight_survives_it_with_the_time_it_had_left() -> None:
    outage = Outage(begins=12, ends=1000)

    async def work() -> None:
        attempts = Attempted(outage)
        # Something worked before: an environment that never did would be given up.
        assert await attempt_all(attempts, members(0, 4)) == [Outcome.FINISHED] * 4
        outage.ladders.clear()
        assert await attempt_all(attempts, members(1, 8)) == [Outcome.FINISHED] * 8
        assert anyio.current_time() > 1000
        # Of its 60 s only those 10 are gone that the attempts took which found the outage.
        assert {round(ladder.until - began) for began, ladder in outage.ladders} == {50}
        outage.ladders.clear()
        assert await attempt_all(attempts, members(2, 1)) == [Outcome.FINISHED]
        assert [round(ladder.until - began) for began, ladder in outage.ladders] == [60], (
            "no more than others"
        )

    in_no_time(work)


def test_a_group_that_begins_as_the_probe_of_a_pause_has_all_of_its_time_after_it() -> None:
    outage = Outage(begins=0, ends=300, becomes=Outcome.GATEWAY_FAILED)

    async def work() -> None:
        attempts = Attempted(outage)
        with anyio.move_on_after(20):
            await attempt_all(attempts, members(0, 8))
        assert await attempt_all(attempts, members(1, 1, env="unheard of")) == [Outcome.FINISHED]
        assert [round(ladder.until - began) for began, ladder in outage.ladders] == [60]

    in_no_time(work)


def test_what_is_tried_again_without_a_pause_still_ends_with_the_time_of_its_group() -> None:
    outage = Outage(begins=0, ends=math.inf)

    async def work() -> None:
        attempts = Attempted(outage)
        began = anyio.current_time()
        # Too few to conclude anything from: no pause.
        assert await attempt_all(attempts, members(0, 1)) == [Outcome.LOST]
        assert anyio.current_time() - began < 60

    in_no_time(work)
