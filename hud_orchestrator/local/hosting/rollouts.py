"""Rollouts that the service runs whole: environment, agent and grade, told by their traces.

They are attempts like the daemon's own, with one try each: who submits one decides whether to submit
another. They sample through the service's gateway, so that their traces have tokens and train by id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import anyio
import anyio.abc

from hud_orchestrator.attempt import Attempter
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.protocol import Episode, Placement
from hud_orchestrator.environments.template import default_slug
from hud_orchestrator.errors import OrchestratorError
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import Limits
from hud_orchestrator.local.hosting.agent import hosted_agent, hosted_sampling
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.traces import Traces, plain_id
from hud_orchestrator.logs import get_logger
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.records import Outcome, Policy, Rollout, Task, Ticket
from hud_orchestrator.reporting.letters import ended as letter_of
from hud_orchestrator.wire import TraceEnter, TraceExit
from hud_orchestrator.wire_hosting import HostedTask, RolloutSubmit

AT_ONCE = 64
"""Hosted rollouts in flight; the others wait, and their clocks with them."""

WAITING = 4096
"""Hosted rollouts that may wait."""

DEADLINE_S = 3600.0
"""For a rollout whose client names no ``run_timeout_s``, besides its agent's own limit."""

RESERVE_S = 60.0
"""Of the deadline, for the grader."""

log = get_logger()


class HostedRollouts:
    """The hosted rollouts in flight."""

    def __init__(
        self,
        placements: Mapping[str, Placement],
        *,
        traces: Traces,
        gateway: Transport,
        seed: int,
        group: anyio.abc.TaskGroup,
    ) -> None:
        self._placements = placements
        self._traces = traces
        self._gateway = gateway
        self._seed = seed
        self._group = group
        self._slots = anyio.CapacityLimiter(AT_ONCE)
        self._scopes: dict[str, anyio.CancelScope] = {}

    def submit(self, asked: RolloutSubmit) -> None:
        """Begin a rollout; submitting one of the same trace again changes nothing.

        Raises:
            Refused: 404, there is no such environment; 503, too many wait.
        """
        trace_id = plain_id(asked.trace_id)
        for env in (asked.env, *([asked.verifier.env] if asked.verifier else [])):
            if env not in self._placements:
                known = ", ".join(sorted(self._placements)) or "none; start it with --environments"
                raise Refused(404, f"there is no environment {env!r} here; there are: {known}")
        if self._traces.is_over(trace_id) or trace_id in self._scopes:
            return
        if len(self._scopes) >= AT_ONCE + WAITING:
            raise Refused(503, f"{len(self._scopes)} rollouts are in flight or wait", retry_after_s=5)
        entered = TraceEnter(
            job_id=asked.job_id,
            group_id=asked.group_id,
            task_slug=asked.slug,
            model=asked.agent.config.model,
            parent_trace_id=asked.parent_trace_id,
        )
        self._traces.enter(trace_id, entered)
        scope = self._scopes[trace_id] = anyio.CancelScope()
        self._group.start_soon(self._run, trace_id, asked, scope, name=f"hosted-{trace_id}")

    def cancel(self, trace_id: str) -> bool:
        """End a rollout; whether it was in flight.

        Raises:
            Refused: 404, nothing is known of it. One in flight may have outlived what was kept of its trace.
        """
        scope = self._scopes.get(plain_id(trace_id))
        if scope is None:
            self._traces.get(trace_id)
            return False
        scope.cancel("the client asks for it")
        return True

    async def _run(self, trace_id: str, asked: RolloutSubmit, scope: anyio.CancelScope) -> None:
        ticket = Ticket(group=0, member=0, task=_task(asked), trace_id=trace_id)
        ended = Rollout(
            ticket=ticket, trace_id=trace_id, outcome=Outcome.CANCELLED, detail="it was cancelled"
        )
        try:
            with scope:
                async with self._slots:
                    attempter = self._attempter(asked, trace_id)
                    ended = await attempter.attempt(ticket, temperature=_temperature(asked))
        except OrchestratorError as error:
            ended = replace(ended, outcome=Outcome.GATEWAY_REFUSED, detail=str(error))
        except Exception as error:
            # A bug of ours, and as little a reason to end the service as one behind a route.
            log.exception("request.failed", path="/v2/rollouts/submit", trace=trace_id)
            ended = replace(ended, outcome=Outcome.LOST, detail=f"{type(error).__name__}: {error}")
        finally:
            del self._scopes[trace_id]
            self._traces.exit(trace_id, _exit(ended))
            log.info("rollout.hosted", trace=trace_id, outcome=ended.outcome, reward=ended.reward)

    def _attempter(self, asked: RolloutSubmit, trace_id: str) -> Attempter:
        config, deadline_s = asked.agent.config, _deadline_s(asked)
        return Attempter(
            placement=_ByName(self._placements),
            agent=hosted_agent(config),
            gateway=PacedGateway(
                Gateway(self._gateway, model=config.model, checkpoint=config.checkpoint), most=1
            ),
            # Nobody asks a hosted rollout for versions: its client knows at which one it was submitted.
            policy=PolicyCell(Policy(version=0, checkpoint=None)),
            sampling=hosted_sampling(config, seed=self._seed, trace_id=trace_id),
            limits=Limits(
                deadline_s=deadline_s,
                grading_reserve_s=min(RESERVE_S, deadline_s / 2),
                infrastructure_retries=0,
            ),
            dispatch=Dispatch(concurrency=1),
        )


class _ByName:
    """Each task in its own environment: a verifier's may be another than its task's."""

    def __init__(self, placements: Mapping[str, Placement]) -> None:
        self._placements = placements

    def episode(self, task: Task, *, trace_id: str | None = None) -> AbstractAsyncContextManager[Episode]:
        return self._placements[task.env].episode(task, trace_id=trace_id)


def _exit(ended: Rollout) -> TraceExit:
    told = TraceExit.model_validate(letter_of(ended, treatments={}, version=0).body)
    # A reward of 0 would be a grade to the SDK, which has nothing else to go by.
    return told.model_copy(update={"reward": ended.reward})


def _task(asked: RolloutSubmit) -> Task:
    args = asked.args or {}
    verifier = asked.verifier
    return Task(
        env=asked.env,
        id=asked.task,
        args=args,
        slug=asked.slug or default_slug(asked.task, args),
        agent_timeout_s=asked.agent.config.timeout_seconds,
        runtime_config=asked.runtime_config,
        verifier=None if verifier is None else _verifier(verifier),
    )


def _verifier(asked: HostedTask) -> Task:
    args = asked.args or {}
    return Task(env=asked.env, id=asked.id, args=args, slug=asked.slug or default_slug(asked.id, args))


def _temperature(asked: RolloutSubmit) -> float:
    given = asked.agent.config.completion_kwargs.temperature
    return 1.0 if given is None else given


def _deadline_s(asked: RolloutSubmit) -> float:
    """The row's ``run_timeout_s``, or enough for its agent's own limit."""
    limits = (asked.runtime_config or {}).get("limits")
    given = limits.get("run_timeout_s") if isinstance(limits, Mapping) else None
    if isinstance(given, int | float) and 0 < given < math.inf:
        return float(given)
    agent_s = asked.agent.config.timeout_seconds
    return DEADLINE_S if agent_s is None else agent_s + 2 * RESERVE_S
