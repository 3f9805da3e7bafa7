"""One trial of a task: start, act, grade, and what became of it. Its clock is a :mod:`ladder`.

Whatever stops the agent, the environment is asked to grade what was done, unless it is gone itself. An
overrun is an outcome, not an exception; a cancellation from outside is neither caught nor converted.

A task with a verifier is graded twice: by its own environment as well as it can, and then by the verifier,
whose answer is the first grade's frame. The verifier's grade is the one that counts::

    same environment, same machine    start -> act -> grade -> verifier on the same connection -> teardown
    any other                         start -> act -> grade -> teardown -> verifier: start, grade, teardown

Environments and agents fail in ways that have a class in :mod:`errors`. Any other exception is a bug of
ours: it ends the run, rather than being taken for an environment's failure.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import anyio

from hud_orchestrator.agents.own import AgentRaised
from hud_orchestrator.agents.protocol import Agent, Transcript
from hud_orchestrator.environments.grades import NotAGrade, check_grade
from hud_orchestrator.environments.protocol import Episode, Placement
from hud_orchestrator.errors import (
    EnvironmentFailed,
    EnvironmentLost,
    GraderRaised,
    RequestRejected,
    ServiceBusy,
    ServiceUnreachable,
    ToolsLost,
)
from hud_orchestrator.ladder import Ladder
from hud_orchestrator.policy import EpisodePolicy
from hud_orchestrator.records import Outcome, Phase, Rollout, Task, Ticket

GONE = frozenset({Outcome.LOST, Outcome.GATEWAY_FAILED})
"""Ends of acting after which no grade is asked for: nobody is there to give it, or it would be about an
attempt that the gateway spoilt."""

DETAIL_LIMIT = 2000
"""Characters of what went wrong: an environment's error may be as long as a frame."""


class Trial:
    """One attempt, as far as it got."""

    def __init__(self, ticket: Ticket, *, ladder: Ladder, attempt: int = 1) -> None:
        """Make the *attempt*-th one at the ticket; *ladder* is its clock."""
        self.trace_id = ticket.trace_id or uuid.uuid4().hex
        self.transcript = Transcript()
        self._began_at = round(time.time(), 3)
        self._ticket = ticket
        self._attempt = attempt
        self._ladder = ladder
        self._phase = Phase.START
        self._interrupted = Phase.START
        """The phase that teardown came after."""
        self._since = self._began = anyio.current_time()
        self._spent: dict[Phase, float] = {}
        self._trouble: tuple[Outcome, str, Phase] | None = None
        self._cut: str | None = None
        """Why the agent was cut short."""
        self._over = False
        """Whether nothing is left to ask of an environment."""
        self._reward: float | None = None
        self._grade: Mapping[str, Any] | None = None
        self._actor_grade: Mapping[str, Any] | None = None

    async def run(self, placement: Placement, agent: Agent, policy: EpisodePolicy) -> Rollout:
        """Start, act, grade; the rollout, whatever happens."""
        with anyio.CancelScope(deadline=self._ladder.start_until) as scope:
            try:
                await self._with_actor(placement, agent, policy, scope)
            except EnvironmentFailed as failure:
                # Of the teardown, when nothing was left to ask: that spoils no grade.
                if not self._over:
                    started = self._phase is not Phase.START
                    self._hit(Outcome.LOST if started else Outcome.NOT_STARTED, str(failure))
            if self._actor_grade is not None and not self._over:
                await self._verify_elsewhere(placement)
        self._enter(Phase.TEARDOWN, at=min(anyio.current_time(), scope.deadline))
        if scope.cancelled_caught and not self._over:
            self._overran()
        self._enter(Phase.TEARDOWN)
        return self.rollout()

    async def _with_actor(
        self, placement: Placement, agent: Agent, policy: EpisodePolicy, scope: anyio.CancelScope
    ) -> None:
        async with placement.episode(self._ticket.task, trace_id=self.trace_id) as episode:
            scope.deadline = self._ladder.until
            try:
                self._enter(Phase.ACT)
                await self._act(episode, agent, policy)
                if self._trouble is not None and self._trouble[0] in GONE:
                    self._over = True
                    return
                self._enter(Phase.GRADE)
                await self._ask_for_grade(episode)
            finally:
                self._enter(Phase.TEARDOWN)

    async def _act(self, episode: Episode, agent: Agent, policy: EpisodePolicy) -> None:
        own_s = self._ticket.task.agent_timeout_s
        now = anyio.current_time()
        until = self._ladder.act_until if own_s is None else min(self._ladder.act_until, now + own_s)
        try:
            with anyio.move_on_at(until) as acting:
                await agent.act(episode, policy, self.transcript)
            if acting.cancelled_caught and policy.kept_waiting is not None:
                # The time is up because the gateway answers nobody, which is not the agent's doing.
                self._hit(Outcome.GATEWAY_FAILED, policy.kept_waiting)
            elif acting.cancelled_caught:
                self._cut = f"the agent was cut short after {until - now:.3g} s"
                self.transcript.notes.failed(self._cut)
        except ToolsLost as failure:
            self._hit(Outcome.TOOL_FAILURE, str(failure))
        except GraderRaised as failure:
            self._hit(Outcome.GRADER_FAILED, str(failure))
        except EnvironmentFailed as failure:
            self._hit(Outcome.LOST, str(failure))
        except (ServiceUnreachable, ServiceBusy) as failure:
            self._hit(Outcome.GATEWAY_FAILED, str(failure))
        except RequestRejected as refusal:
            self._hit(Outcome.GATEWAY_REFUSED, str(refusal))
        except AgentRaised as mistake:
            self._hit(Outcome.AGENT_ERROR, str(mistake))

    async def _ask_for_grade(self, episode: Episode) -> None:
        task = self._ticket.task
        if task.verifier is None:
            await self._judge(episode, self.transcript.answer, lost=Outcome.LOST)
            self._over = True
            return
        self._actor_grade = await self._best_effort(episode)
        if self._actor_grade is None:
            self._over = True
        elif _shares(task, task.verifier):
            await self._verify(episode, task.verifier)

    async def _best_effort(self, episode: Episode) -> Mapping[str, Any] | None:
        """The actor's own grade; what went wrong with it is for the verifier to read."""
        answer = self.transcript.answer
        try:
            frame = await episode.grade(answer)
            check_grade(frame)
        except EnvironmentLost as failure:
            self._hit(Outcome.LOST, str(failure))
            return None
        except (EnvironmentFailed, NotAGrade) as failure:
            return {"score": 0.0, "answer": answer, "content": str(failure), "isError": True}
        return frame

    async def _verify(self, episode: Episode, verifier: Task) -> None:
        try:
            following = await episode.follow(verifier)
        except EnvironmentFailed as failure:
            self._hit(Outcome.GRADER_FAILED, f"the verifier did not start: {failure}")
        else:
            await self._judge(following, self._actor_grade, lost=Outcome.GRADER_FAILED)
        self._over = True

    async def _verify_elsewhere(self, placement: Placement) -> None:
        verifier = self._ticket.task.verifier
        assert verifier is not None  # somebody waits for it
        self._enter(Phase.GRADE)
        try:
            async with placement.episode(verifier, trace_id=self.trace_id) as episode:
                try:
                    await self._judge(episode, self._actor_grade, lost=Outcome.GRADER_FAILED)
                    self._over = True
                finally:
                    self._enter(Phase.TEARDOWN)
        except EnvironmentFailed as failure:
            if not self._over:
                self._hit(Outcome.GRADER_FAILED, f"the verifier did not start: {failure}")
                self._over = True

    async def _judge(self, episode: Episode, answer: Any, *, lost: Outcome) -> None:
        """Ask for the grade that counts."""
        since = anyio.current_time()
        try:
            frame = await episode.grade(answer)
            self.transcript.notes.graded(since=since)
            self._grade = frame
            self._reward = check_grade(frame)
            if frame.get("isError"):
                self._reward = None
                said = frame.get("content") or "no content"
                self._hit(Outcome.GRADER_FAILED, f"the grader reports an error: {said}")
        except EnvironmentLost as failure:
            self._hit(lost, str(failure))
        except (EnvironmentFailed, NotAGrade) as failure:
            self._hit(Outcome.GRADER_FAILED, str(failure))

    def _enter(self, phase: Phase, *, at: float | None = None) -> None:
        now = anyio.current_time() if at is None else at
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + max(0.0, now - self._since)
        if phase is Phase.TEARDOWN and self._phase is not phase:
            self._interrupted = self._phase
        self._phase, self._since = phase, max(now, self._since)

    def _hit(self, outcome: Outcome, detail: str, *, phase: Phase | None = None) -> None:
        detail = detail if len(detail) <= DETAIL_LIMIT else f"{detail[:DETAIL_LIMIT]}..."
        self.transcript.notes.failed(detail)
        # What went wrong first explains what went wrong then.
        if self._trouble is None:
            self._trouble = outcome, detail, phase or self._phase

    def _overran(self) -> None:
        ladder, phase = self._ladder, self._interrupted
        if phase is Phase.START:
            limit_s = ladder.start_until - self._began
            detail = f"the environment did not start in {limit_s:.3g} s"
            self._hit(Outcome.NOT_STARTED, detail, phase=phase)
            return
        stopped = self._cut is not None or phase is Phase.ACT
        self._hit(
            Outcome.UNGRADED if stopped else Outcome.GRADER_FAILED,
            f"no grade in the {ladder.until - ladder.act_until:.3g} s kept for it",
            phase=phase,
        )

    def rollout(self) -> Rollout:
        """What has become of it so far."""
        outcome, detail, phase = self._trouble or (self.transcript.ended, None, Phase.TEARDOWN)
        if self._trouble is None and self._cut is not None:
            outcome, detail = Outcome.CUT_SHORT, self._cut
        return Rollout(
            ticket=self._ticket,
            trace_id=self.trace_id,
            outcome=outcome,
            samples=tuple(self.transcript.samples),
            untold_version=min(self.transcript.untold, default=None),
            reward=self._reward,
            grade=self._whole_grade(),
            answer=self.transcript.text,
            detail=detail,
            attempts=self._attempt,
            phase=phase,
            phases=self._spent,
            began_at=self._began_at,
            steps=tuple(self.transcript.notes.steps),
        )

    def _whole_grade(self) -> Mapping[str, Any] | None:
        if self._grade is None or self._actor_grade is None:
            return self._grade
        return {**self._grade, "actor_grade": dict(self._actor_grade)}


def _shares(task: Task, verifier: Task) -> bool:
    """Whether the verifier runs where its task ran: same environment, and it asks for no other machine."""
    return verifier.env == task.env and verifier.runtime_config is None
