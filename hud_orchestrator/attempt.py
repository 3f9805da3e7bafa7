"""One ticket, one attempt at its task, one deadline, one rollout.

    |<------------------------------ deadline_s ------------------------------>|
    start             act: the agent's turns and tools     | grade             | hard stop, then teardown
    an environment,                                        ^ grading_reserve_s |   teardown_s at most
    its first prompt                                         before the end: the agent is cut short here

Whatever stops the agent, the environment is asked to grade what was done, unless it is gone itself.
What the run file says to try again is tried again inside the same deadline. An overrun is an outcome,
not an exception; a cancellation from outside is neither caught nor converted.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio

from hud_orchestrator.agents.own import AgentRaised
from hud_orchestrator.agents.protocol import Agent, Transcript
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.environments.protocol import Episode, Placement
from hud_orchestrator.errors import (
    EnvironmentFailed,
    EnvironmentLost,
    RequestRejected,
    ServiceBusy,
    ServiceUnreachable,
    ToolsLost,
)
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.policy import EpisodePolicy, Sampling
from hud_orchestrator.records import Outcome, Phase, Rollout, Ticket
from hud_orchestrator.reporting.witness import Nobody, Witness

log = get_logger()

FIRST_WAIT_S = 0.5
"""Before an attempt is made again; doubled each time."""

GONE = frozenset({Outcome.LOST, Outcome.GATEWAY_FAILED})
"""Ends of acting after which no grade is asked for: nobody is there to give it, or it would be about an
attempt that the gateway spoilt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an attempt may take, in seconds, and what is attempted again, how often."""

    deadline_s: float
    grading_reserve_s: float
    infrastructure_retries: int
    retried: Collection[Outcome] = (Outcome.NOT_STARTED, Outcome.LOST, Outcome.GATEWAY_FAILED)


class Attempter:
    """Attempts tickets: a placement, an agent, a gateway and the clock behind one call."""

    def __init__(
        self,
        *,
        placement: Placement,
        agent: Agent,
        gateway: Gateway,
        policy: PolicyCell,
        sampling: Sampling,
        limits: Limits,
        concurrency: int,
        witness: Witness | None = None,
    ) -> None:
        self._placement = placement
        self._agent = agent
        self._gateway = gateway
        self._policy = policy
        self._sampling = sampling
        self._limits = limits
        self._witness = witness or Nobody()
        # Training and evaluation come through here alike, and together keep the bound.
        self._slots = anyio.CapacityLimiter(concurrency)

    async def attempt(self, ticket: Ticket, *, temperature: float) -> Rollout:
        """Attempt *ticket* and return what became of it.

        Its clock starts when it has a slot; it gives the slot back by its deadline plus a bounded
        teardown.
        """
        async with self._slots:
            return await self._attempt(ticket, temperature)

    async def _attempt(self, ticket: Ticket, temperature: float) -> Rollout:
        started = anyio.current_time()
        deadline = started + self._limits.deadline_s
        acting_until = deadline - self._limits.grading_reserve_s
        spent: Counter[Phase] = Counter()
        attempts = 1
        while True:
            once = _Once(ticket, deadline=deadline, acting_until=acting_until, limits=self._limits)
            policy = EpisodePolicy(
                self._gateway,
                self._policy,
                self._sampling,
                once.transcript,
                ticket=ticket,
                attempt=attempts,
                temperature=temperature,
                trace_id=once.trace_id,
            )
            self._witness.began(ticket, trace_id=once.trace_id)
            try:
                rollout = await once.run(self._placement, self._agent, policy)
            except anyio.get_cancelled_exc_class():
                self._witness.ended(replace(once.rollout(), outcome=Outcome.CANCELLED, attempts=attempts))
                raise
            rollout = replace(rollout, attempts=attempts)
            self._witness.ended(rollout)
            spent.update(rollout.phases)
            wait_s = FIRST_WAIT_S * 2 ** (attempts - 1)
            again = (
                rollout.outcome in self._limits.retried and attempts <= self._limits.infrastructure_retries
            )
            if not again or anyio.current_time() + wait_s >= acting_until:
                return replace(rollout, seconds=anyio.current_time() - started, phases=dict(spent))
            log.info(
                "rollout.retried",
                group=ticket.group,
                member=ticket.member,
                outcome=rollout.outcome,
                reason=rollout.detail,
            )
            attempts += 1
            await anyio.sleep(wait_s)


class _Once:
    """One attempt, as far as it got."""

    def __init__(self, ticket: Ticket, *, deadline: float, acting_until: float, limits: Limits) -> None:
        self.trace_id = ticket.trace_id or uuid.uuid4().hex
        self.transcript = Transcript()
        self._began_at = round(time.time(), 3)
        self._ticket = ticket
        self._deadline = deadline
        self._acting_until = acting_until
        self._limits = limits
        self._phase = Phase.START
        self._since = anyio.current_time()
        self._spent: dict[Phase, float] = {}
        self._trouble: tuple[Outcome, str] | None = None
        self._trouble_phase = Phase.START
        self._cut = False
        self._grade: Mapping[str, Any] | None = None

    async def run(self, placement: Placement, agent: Agent, policy: EpisodePolicy) -> Rollout:
        """Start, act, grade; the rollout, whatever happens."""
        try:
            with anyio.move_on_at(self._deadline):
                async with placement.episode(self._ticket.task, trace_id=self.trace_id) as episode:
                    self._enter(Phase.ACT)
                    await self._act(episode, agent, policy)
                    if self._trouble is None or self._trouble[0] not in GONE:
                        self._enter(Phase.GRADE)
                        await self._ask_for_grade(episode)
                    self._enter(Phase.TEARDOWN)
        except EnvironmentFailed as failure:
            self._hit(Outcome.NOT_STARTED if self._phase is Phase.START else Outcome.LOST, str(failure))
        if self._phase is not Phase.TEARDOWN and self._trouble is None:
            self._overran()
        self._enter(self._phase)
        return self.rollout()

    async def _act(self, episode: Episode, agent: Agent, policy: EpisodePolicy) -> None:
        try:
            with anyio.move_on_at(self._acting_until) as acting:
                await agent.act(episode, policy, self.transcript)
            self._cut = acting.cancelled_caught
            if self._cut:
                self.transcript.notes.failed("the agent was cut short, to leave time for the grade")
        except ToolsLost as failure:
            self._hit(Outcome.TOOL_FAILURE, str(failure))
        except EnvironmentFailed as failure:
            self._hit(Outcome.LOST, str(failure))
        except (ServiceUnreachable, ServiceBusy) as failure:
            self._hit(Outcome.GATEWAY_FAILED, str(failure))
        except RequestRejected as refusal:
            self._hit(Outcome.GATEWAY_REFUSED, str(refusal))
        except AgentRaised as mistake:
            self._hit(Outcome.AGENT_ERROR, str(mistake))

    async def _ask_for_grade(self, episode: Episode) -> None:
        since = anyio.current_time()
        try:
            self._grade = await episode.grade(self.transcript.answer)
            self.transcript.notes.graded(since=since)
        except EnvironmentLost as failure:
            self._hit(Outcome.LOST, str(failure))
        except EnvironmentFailed as failure:
            self._hit(Outcome.GRADER_FAILED, str(failure))

    def _enter(self, phase: Phase) -> None:
        now = anyio.current_time()
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def _hit(self, outcome: Outcome, detail: str) -> None:
        # What went wrong first explains what went wrong then.
        self.transcript.notes.failed(detail)
        if self._trouble is None:
            self._trouble, self._trouble_phase = (outcome, detail), self._phase

    def _overran(self) -> None:
        limits = self._limits
        if self._phase is Phase.START:
            self._hit(Outcome.NOT_STARTED, f"the environment did not start in {limits.deadline_s:g} s")
        else:
            stopped = self._cut or self._phase is Phase.ACT
            outcome = Outcome.UNGRADED if stopped else Outcome.GRADER_FAILED
            self._hit(outcome, f"no grade in the {limits.grading_reserve_s:g} s kept for it")

    def rollout(self) -> Rollout:
        """What has become of it so far."""
        outcome, detail = self._trouble or (self.transcript.ended, None)
        if self._trouble is None and self._cut:
            outcome = Outcome.CUT_SHORT
        return Rollout(
            ticket=self._ticket,
            trace_id=self.trace_id,
            outcome=outcome,
            samples=tuple(self.transcript.samples),
            reward=None if self._grade is None else float(self._grade["score"]),
            grade=self._grade,
            answer=self.transcript.text,
            detail=detail,
            phase=self._trouble_phase if self._trouble else Phase.TEARDOWN,
            phases=self._spent,
            began_at=self._began_at,
            steps=tuple(self.transcript.notes.steps),
        )
