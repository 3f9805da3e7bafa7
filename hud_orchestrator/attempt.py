"""Tickets become rollouts: attempts at a task, one after the other, until one counts.

Every ticket yields exactly one rollout. What the run file says to try again (failures of environments and
of the gateway, nothing else) is tried again with a whole ladder, while the group has time: see
:mod:`hud_orchestrator.ladder`.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace

import anyio

from hud_orchestrator.agents.protocol import Agent
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import GroupClocks, Ladder, Limits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import EpisodePolicy, Sampling
from hud_orchestrator.records import ABANDONED, Outcome, Phase, Rollout, Ticket
from hud_orchestrator.reporting.witness import Nobody, Witness
from hud_orchestrator.trial import Trial

FIRST_LAG_WAIT_S, LONGEST_LAG_WAIT_S = 0.5, 8.0
"""Before an attempt that another policy has made is made anew."""

log = get_logger()


class Attempts(ABC):
    """Attempts tickets again and again, however one attempt is made."""

    def __init__(self, *, limits: Limits, dispatch: Dispatch) -> None:
        self._limits = limits
        self._groups = GroupClocks(group_s=limits.group_s)
        self._dispatch = dispatch

    @abstractmethod
    async def once(self, ticket: Ticket, ladder: Ladder, *, attempt: int, temperature: float) -> Rollout:
        """One attempt at *ticket*, the *attempt*-th: the rollout, whatever happens."""

    async def attempt(self, ticket: Ticket, *, temperature: float, version: int | None = None) -> Rollout:
        """Attempt *ticket* and return what became of it.

        A slot is held by one attempt, for its deadline plus a bounded teardown at most.

        Args:
            ticket: what to attempt.
            temperature: of sampling.
            version: of the policy that has to make it; a gateway may serve the one before for a while.
                ``None``: any one of this run.

        Raises:
            RunFailed, ServiceUnreachable: what it needs has been broken for too long.
        """
        try:
            return await self._by(version, ticket, temperature)
        finally:
            self._groups.leave(ticket)

    async def _by(self, version: int | None, ticket: Ticket, temperature: float) -> Rollout:
        wait_s = FIRST_LAG_WAIT_S
        while True:
            rollout = await self._attempts(ticket, temperature)
            reason = _wrong_policy(rollout, version)
            if reason is None:
                return rollout
            if anyio.current_time() + wait_s >= self._group_until(ticket) - self._limits.grading_reserve_s:
                return replace(rollout, outcome=Outcome.GATEWAY_FAILED, reward=None, detail=reason)
            log.info("rollout.retried", group=ticket.group, member=ticket.member, reason=reason)
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_LAG_WAIT_S)

    async def _attempts(self, ticket: Ticket, temperature: float) -> Rollout:
        last: Rollout | None = None
        forgiven = 0
        while True:
            async with self._dispatch.place(ticket.task.env) as passage:
                ladder = Ladder.from_now(self._limits, group_until=self._group_until(ticket))
                if ladder.over:
                    return last or self._not_begun(ticket)
                passage.rollout = rollout = await self._try(ticket, ladder, temperature, last)
            if self._dispatch.paused(ticket.task.env):
                # It was one of those that showed what is broken, and the next one waits until it is mended.
                forgiven = 1
            if not self._helps(rollout, forgiven):
                return rollout
            log.info(
                "rollout.retried",
                group=ticket.group,
                member=ticket.member,
                outcome=rollout.outcome,
                reason=rollout.detail,
            )
            await anyio.sleep(self._limits.wait_s(rollout.attempts - forgiven))
            last = rollout

    async def _try(self, ticket: Ticket, ladder: Ladder, temperature: float, last: Rollout | None) -> Rollout:
        """Attempt once; the rollout sums up the attempts before it, the *last* of which it replaces."""
        number = 1 if last is None else last.attempts + 1
        began = anyio.current_time()
        rollout = await self.once(ticket, ladder, attempt=number, temperature=temperature)
        seconds = anyio.current_time() - began
        if last is None:
            return replace(rollout, attempts=number, seconds=seconds)
        spent = Counter(rollout.phases)
        spent.update(last.phases)
        return replace(rollout, attempts=number, seconds=seconds + last.seconds, phases=dict(spent))

    def _helps(self, rollout: Rollout, forgiven: int) -> bool:
        """Whether another attempt may be made, and has time to act; so many of them do not count."""
        limits, number = self._limits, rollout.attempts - forgiven
        if rollout.outcome not in limits.retried or number > limits.infrastructure_retries:
            return False
        begins = anyio.current_time() + limits.wait_s(number)
        return begins < self._group_until(rollout.ticket) - limits.grading_reserve_s

    def _group_until(self, ticket: Ticket) -> float:
        return self._groups.until(ticket, paused_s=self._dispatch.paused_s(ticket.task.env))

    def _not_begun(self, ticket: Ticket) -> Rollout:
        return Rollout(
            ticket=ticket,
            trace_id=uuid.uuid4().hex,
            outcome=Outcome.NOT_BEGUN,
            detail=f"the {self._limits.group_s:g} s of its group were over",
            attempts=0,
            phase=Phase.START,
        )


def _wrong_policy(rollout: Rollout, version: int | None) -> str | None:
    """Why a rollout is not of a policy that it is wanted of; without *version* any one of the run will do."""
    made_by = rollout.oldest_version
    if version is None:
        outside = "the gateway still serves a checkpoint that is not in the history of this run"
        return outside if made_by == ABANDONED else None
    if made_by in (None, version):
        return None
    return f"the gateway still serves the policy of step {made_by}, not {version}"


class Attempter(Attempts):
    """Attempts made here: a placement, an agent and a gateway behind one call."""

    def __init__(
        self,
        *,
        placement: Placement,
        agent: Agent,
        gateway: PacedGateway,
        policy: PolicyCell,
        sampling: Sampling,
        limits: Limits,
        dispatch: Dispatch,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(limits=limits, dispatch=dispatch)
        self._placement = placement
        self._agent = agent
        self._gateway = gateway
        self._policy = policy
        self._sampling = sampling
        self._witness = witness or Nobody()

    async def once(self, ticket: Ticket, ladder: Ladder, *, attempt: int, temperature: float) -> Rollout:
        """Start, act and grade here."""
        trial = Trial(ticket, ladder=ladder, attempt=attempt)
        policy = EpisodePolicy(
            self._gateway,
            self._policy,
            self._sampling,
            trial.transcript,
            ticket=ticket,
            attempt=attempt,
            temperature=temperature,
            trace_id=trial.trace_id,
        )
        self._witness.began(ticket, trace_id=trial.trace_id)
        try:
            rollout = await trial.run(self._placement, self._agent, policy)
        except anyio.get_cancelled_exc_class():
            self._witness.ended(replace(trial.rollout(), outcome=Outcome.CANCELLED))
            raise
        self._witness.ended(rollout)
        return rollout
