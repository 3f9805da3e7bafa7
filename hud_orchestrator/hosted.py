"""Attempts that run elsewhere, whole: here they are submitted, waited for, and folded into rollouts.

    |<------------------------ deadline_s ------------------------>|
    submit    the platform starts an environment,    | grade       | cancel it there, in CANCEL_S at most
              and its agent acts                     ^ grading_reserve_s before the end: the agent's limit

What comes back is a reward, the whole evaluation and the trace id. The tokens stay with the service, which
finds them again when it is told to train on the id; the reward that it trains with is its own, so that is
the one that counts here as well.

A platform that gives no answer is asked again, as often as for any read. An attempt whose deadline comes
meanwhile was failed by it: how its agent did is not known.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import anyio

from hud_orchestrator.agents.tools import as_choice
from hud_orchestrator.attempt import Attempts
from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.clients.retry import ONCE, patiently
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.errors import OrchestratorError, RequestRejected, ServiceBusy, ServiceUnreachable
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import Ladder, Limits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Outcome, Phase, Rollout, Task, Ticket
from hud_orchestrator.rules.grouping import group_id
from hud_orchestrator.rules.seeds import derive
from hud_orchestrator.rules.trace_states import OVER, outcome_of, reward_of
from hud_orchestrator.wire_hosting import (
    AgentConfig,
    CompletionKwargs,
    HostedAgent,
    HostedTask,
    RolloutSubmit,
    TraceState,
)

T = TypeVar("T")

FIRST_LOOK_S = 0.1
"""Before the platform is asked for the first time; longer each time, up to ``poll_s``."""

SLOWER = 1.5

CANCEL_S = 5.0
"""For the platform to take a cancellation, as the SDK has it."""

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedPolicy:
    """Who acts, elsewhere."""

    model: str
    """The slug."""
    sampling: Sampling
    max_turns: int
    checkpoint: str | None = None
    """Sampled instead of the head."""
    system_prompt: str | None = None
    tool_timeout_s: float | None = None


class HostedAttempter(Attempts):
    """Attempts made on the platform."""

    def __init__(
        self,
        platform: HostedRollouts,
        policy: HostedPolicy,
        versions: PolicyCell,
        *,
        limits: Limits,
        dispatch: Dispatch,
        job_id: str,
        poll_s: float,
    ) -> None:
        """Attempt with *policy*.

        Args:
            platform: where they run.
            policy: who acts.
            versions: which version the gateway serves.
            limits: of an attempt and a group.
            dispatch: lets them begin.
            job_id: a UUID that all of them have in common.
            poll_s: longest wait between two looks at one of them.
        """
        super().__init__(limits=limits, dispatch=dispatch)
        self._platform = platform
        self._policy = policy
        self._versions = versions
        self._job_id = uuid.UUID(job_id)
        self._poll_s = poll_s

    async def once(self, ticket: Ticket, ladder: Ladder, *, attempt: int, temperature: float) -> Rollout:
        """Submit, and wait until it is over. Left early, it is cancelled there.

        Raises:
            KeyRefused: the platform does not know the key.
        """
        fate = _Fate(dispatched_at=self._versions.current.version)
        act_s = ladder.act_until - fate.began
        kwargs = self._kwargs(ticket, attempt=attempt, temperature=temperature)
        asked = self._submission(ticket, fate, act_s=act_s, kwargs=kwargs)
        try:
            with anyio.move_on_at(ladder.until):
                await self._follow(asked, fate)
        finally:
            if fate.state is None and not fate.refused:
                await self._cancel(fate.trace_id)
        return fate.rollout(ticket)

    async def _follow(self, asked: RolloutSubmit, fate: _Fate) -> None:
        try:
            await fate.hears(partial(self._platform.submit, asked, retry=ONCE))
            fate.submitted = anyio.current_time()
            fate.state = await self._over(fate)
        except (ServiceUnreachable, ServiceBusy):
            pass  # its fate has the reason
        except RequestRejected as refusal:
            fate.refused = fate.submitted is None
            fate.trouble = Outcome.NOT_STARTED if fate.refused else Outcome.LOST, str(refusal)

    async def _over(self, fate: _Fate) -> TraceState:
        """The state of a rollout when it is over: the platform tells it to those who ask."""
        wait_s = min(FIRST_LOOK_S, self._poll_s)
        while True:
            await anyio.sleep(wait_s)
            state = await fate.hears(partial(self._platform.state, fate.trace_id, retry=ONCE))
            if state.status in OVER:
                return state
            wait_s = min(wait_s * SLOWER, self._poll_s)

    async def _cancel(self, trace_id: str) -> None:
        with anyio.move_on_after(CANCEL_S, shield=True) as patience:
            try:
                await self._platform.cancel(trace_id)
            except OrchestratorError as error:
                log.warning("rollout.not_cancelled", trace=trace_id, reason=str(error))
        if patience.cancelled_caught:
            log.warning("rollout.not_cancelled", trace=trace_id, reason=f"no answer in {CANCEL_S:g} s")

    def _submission(
        self, ticket: Ticket, fate: _Fate, *, act_s: float, kwargs: CompletionKwargs
    ) -> RolloutSubmit:
        task = ticket.task
        limit_s = act_s if task.agent_timeout_s is None else min(act_s, task.agent_timeout_s)
        config = AgentConfig(
            model=self._policy.model,
            checkpoint=self._policy.checkpoint,
            system_prompt=self._policy.system_prompt,
            max_steps=self._policy.max_turns,
            timeout_seconds=max(limit_s, 0.001),
            tool_timeout_seconds=self._policy.tool_timeout_s,
            completion_kwargs=kwargs,
        )
        return RolloutSubmit(
            trace_id=str(uuid.UUID(fate.trace_id)),
            job_id=str(self._job_id),
            group_id=group_id(self._job_id.hex, ticket, version=fate.dispatched_at),
            env=task.env,
            task=task.id,
            slug=task.slug,
            args=dict(task.args),
            agent=HostedAgent(type="openai_compatible", config=config),
            runtime_config=None if task.runtime_config is None else dict(task.runtime_config),
            verifier=None if task.verifier is None else _verifier(task.verifier),
        )

    def _kwargs(self, ticket: Ticket, *, attempt: int, temperature: float) -> CompletionKwargs:
        sampling, who = self._policy.sampling, (ticket.purpose, ticket.group, ticket.member)
        given = {
            "max_tokens": sampling.max_tokens,
            "temperature": temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "seed": derive(sampling.seed, *who, attempt),
            "tool_choice": None if sampling.tool_choice == "auto" else as_choice(sampling.tool_choice),
            "parallel_tool_calls": None if sampling.parallel_tool_calls else False,
            "extra_body": {"return_token_ids": True},
        }
        return CompletionKwargs.model_validate(given)


@dataclass(slots=True, kw_only=True)
class _Fate:
    """One attempt, as far as it got."""

    dispatched_at: int
    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=anyio.current_time)
    submitted: float | None = None
    refused: bool = False
    """Whether nothing was begun there, and nothing is to be cancelled."""
    state: TraceState | None = None
    trouble: tuple[Outcome, str] | None = None
    """What the platform said no to."""
    silence: str | None = None
    """Why it does not answer, while it does not."""

    async def hears(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the platform answers; it is asked as often as for any read.

        Raises:
            ServiceUnreachable, ServiceBusy: it has been silent for too long.
        """
        answer = await patiently(ask, failed=self._note_silence)
        self.silence = None
        return answer

    def _note_silence(self, failure: OrchestratorError) -> None:
        self.silence = str(failure)

    def rollout(self, ticket: Ticket) -> Rollout:
        """What became of it."""
        ended = anyio.current_time()
        acting = ended if self.submitted is None else self.submitted
        phase, known = Phase.START if self.submitted is None else Phase.ACT, self._known()
        return Rollout(
            ticket=ticket,
            trace_id=self.trace_id,
            phase=Phase.TEARDOWN if known.get("reward") is not None else phase,
            phases={Phase.START: acting - self.began, Phase.ACT: ended - acting},
            untold_version=self.dispatched_at,
            **known,
        )

    def _known(self) -> dict[str, Any]:
        if self.trouble is not None:
            return {"outcome": self.trouble[0], "detail": self.trouble[1]}
        if self.silence is not None:
            return {"outcome": Outcome.GATEWAY_FAILED, "detail": self.silence}
        state = self.state
        if state is None:
            outcome, what = (
                (Outcome.NOT_STARTED, "take") if self.submitted is None else (Outcome.UNGRADED, "end")
            )
            return {"outcome": outcome, "detail": f"the platform did not {what} it by its deadline"}
        outcome = outcome_of(state)
        return {
            "outcome": outcome,
            "reward": reward_of(state),
            "grade": state.evaluation_result,
            "detail": state.error if state.error or outcome.clean else _no_more_than(state),
            # A service that counts turns knows when there is nothing to train on.
            "remote": state.num_turns != 0,
        }


def _no_more_than(state: TraceState) -> str:
    """What is to be said about a rollout that went wrong, when the platform names no error."""
    known = {"status": state.status, "stop_reason": state.stop_reason, "reward": state.reward}
    told = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    return f"the platform says no more than: {told}"


def _verifier(task: Task) -> HostedTask:
    return HostedTask(env=task.env, id=task.id, args=dict(task.args), slug=task.slug)
