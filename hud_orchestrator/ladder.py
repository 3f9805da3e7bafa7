"""When what must be over: in one attempt at a task, and in its group.

One attempt has one clock, which starts when it has a slot::

    |<------------------------------- deadline_s ------------------------------->|
    start                 | act: the agent's turns and tools | grade             | hard stop, then teardown
    an environment and    |                                  ^ grading_reserve_s |   teardown_s at most
    its first prompt:     |                                    before the end the agent is cut short;
    start_s at most       |                                    earlier by its task's own agent_timeout_s

A group has one clock as well, which starts when its first member begins::

    |<---------------------------------- group_s -------------------------------------->|
    member 0  |---- attempt ----|  wait  |---- again, a whole ladder ----|
    member 1        |-------- attempt --------|
    member 2                                               |----- an attempt, shortened |  x not tried again
    member 3                                                                            |  x not begun

It stands still while dispatch is paused: an outage is no fault of the groups that it finds in flight.

So an attempt that is made again, because its environment or the gateway failed, has time like the first:
an environment that hung at its start must not be retried with what the hang has left over. What bounds
the sum is the group's clock: no attempt has time beyond it, none begins when only the grader's reserve
would be left, and those in flight are cut short that reserve before it and graded. A slot is held by one
attempt at most; between two it is free.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import anyio

from hud_orchestrator.records import Outcome, Ticket

FIRST_WAIT_S = 0.5
"""Before an attempt is made again; doubled each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an attempt and a group may take, in seconds, and what is attempted again, how often."""

    deadline_s: float
    grading_reserve_s: float
    infrastructure_retries: int
    start_s: float = math.inf
    group_s: float = math.inf
    retried: Collection[Outcome] = (Outcome.NOT_STARTED, Outcome.LOST, Outcome.GATEWAY_FAILED)

    def wait_s(self, attempts: int) -> float:
        """Seconds before the next attempt, after *attempts* of them."""
        return FIRST_WAIT_S * 2.0 ** (attempts - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The moments of one attempt, on the loop's clock."""

    start_until: float
    act_until: float
    until: float
    """The hard stop: what is not graded by now stays so."""

    @classmethod
    def from_now(cls, limits: Limits, *, group_until: float) -> Self:
        """The ladder of an attempt that begins now."""
        now = anyio.current_time()
        until = min(now + limits.deadline_s, group_until)
        act_until = until - limits.grading_reserve_s
        return cls(start_until=min(now + limits.start_s, act_until), act_until=act_until, until=until)

    @property
    def over(self) -> bool:
        """Whether no time is left to act."""
        return self.act_until <= anyio.current_time()


class GroupClocks:
    """The clocks of the groups in flight."""

    def __init__(self, *, group_s: float) -> None:
        self._group_s = group_s
        self._clocks: dict[tuple[str, int], _Clock] = {}

    def until(self, ticket: Ticket, *, paused_s: float) -> float:
        """When the ticket's group must be over; its clock starts with the first call.

        *paused_s* is for how long its attempts have been paused, ever: the clock stands still while it grows.
        """
        key = (ticket.purpose, ticket.group)
        if key not in self._clocks:
            until = anyio.current_time() + self._group_s - paused_s
            self._clocks[key] = _Clock(until=until, members=ticket.members)
        return self._clocks[key].until + paused_s

    def leave(self, ticket: Ticket) -> None:
        """Say that a member is over; the clock is forgotten with the last one."""
        clock = self._clocks.get((ticket.purpose, ticket.group))
        if clock is None:
            return
        clock.members -= 1
        if clock.members <= 0:
            del self._clocks[ticket.purpose, ticket.group]


@dataclass(slots=True, kw_only=True)
class _Clock:
    until: float
    """If nothing had ever been paused."""
    members: int
    """Those that are not over yet."""
