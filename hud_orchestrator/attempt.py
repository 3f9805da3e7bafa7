"""One ticket, one attempt at its task, one deadline, one rollout.

    |<----------------------- deadline_s ----------------------->|
    start   act: sample turns, hand them over   | grade           | hard stop, bounded teardown
                                                ^ grading_reserve_s before the end: cut short here

Infrastructure that fails is tried again inside the same deadline. An overrun is an outcome, not an
exception; a cancellation from outside is neither caught nor converted.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from hud_orchestrator.agents.chat import Message, Sampler, Transcript, Turn, chat
from hud_orchestrator.clients.gateway import ChatRequest, Gateway
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.errors import EnvironmentFailed, RequestRejected, ServiceBusy, ServiceUnreachable
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Outcome, Rollout, Sample, Ticket
from hud_orchestrator.rules.seeds import derive

log = get_logger()

FIRST_WAIT_S = 0.5
"""Before infrastructure is tried again; doubled each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How turns are sampled, but for the temperature, which evaluation has its own of."""

    top_p: float
    max_tokens: int
    stop: Sequence[str]
    system_prompt: str | None
    max_turns: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an attempt may take, in seconds, and how often it may begin again."""

    deadline_s: float
    grading_reserve_s: float
    infrastructure_retries: int


class Attempter:
    """Attempts tickets: a placement, a gateway and the clock behind one call."""

    def __init__(
        self,
        *,
        placement: Placement,
        gateway: Gateway,
        policy: PolicyCell,
        sampling: Sampling,
        limits: Limits,
        concurrency: int,
    ) -> None:
        self._placement = placement
        self._gateway = gateway
        self._policy = policy
        self._sampling = sampling
        self._limits = limits
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
        attempts = 1
        while True:
            rollout = await self._once(ticket, temperature, attempt=attempts, deadline=deadline)
            wait_s = FIRST_WAIT_S * 2 ** (attempts - 1)
            last = attempts > self._limits.infrastructure_retries
            if (
                not rollout.outcome.infrastructure
                or last
                or anyio.current_time() + wait_s >= self._acting_until(deadline)
            ):
                return replace(rollout, attempts=attempts, seconds=anyio.current_time() - started)
            log.info(
                "rollout.retried",
                group=ticket.group,
                member=ticket.member,
                outcome=rollout.outcome,
                reason=rollout.detail,
            )
            attempts += 1
            await anyio.sleep(wait_s)

    async def _once(self, ticket: Ticket, temperature: float, *, attempt: int, deadline: float) -> Rollout:
        trace_id = uuid.uuid4().hex
        transcript = Transcript()

        def ended(
            outcome: Outcome, *, grade: Mapping[str, Any] | None = None, detail: str | None = None
        ) -> Rollout:
            return Rollout(
                ticket=ticket,
                trace_id=trace_id,
                outcome=outcome,
                samples=tuple(transcript.samples),
                reward=None if grade is None else float(grade["score"]),
                grade=grade,
                answer=transcript.text,
                detail=detail,
            )

        phase = "start"
        try:
            with anyio.move_on_at(deadline):
                async with self._placement.episode(ticket.task) as episode:
                    phase = "act"
                    with anyio.move_on_at(self._acting_until(deadline)) as acting:
                        await chat(
                            episode,
                            sample=self._sampler(ticket, temperature, attempt=attempt, trace_id=trace_id),
                            transcript=transcript,
                            system_prompt=self._sampling.system_prompt,
                            max_turns=self._sampling.max_turns,
                        )
                    phase = "grade"
                    grade = await episode.grade(transcript.pending)
                return ended(_how(acting.cancelled_caught, transcript), grade=grade)
        except EnvironmentFailed as failure:
            return ended(Outcome.ENVIRONMENT_FAILED, detail=str(failure))
        except (ServiceUnreachable, ServiceBusy) as failure:
            return ended(Outcome.GATEWAY_FAILED, detail=str(failure))
        except RequestRejected as refusal:
            return ended(Outcome.REFUSED, detail=str(refusal))
        if phase == "start":
            return ended(
                Outcome.ENVIRONMENT_FAILED,
                detail=f"the environment did not start in {self._limits.deadline_s:g} s",
            )
        return ended(
            Outcome.UNGRADED, detail=f"no grade in the {self._limits.grading_reserve_s:g} s kept for it"
        )

    def _acting_until(self, deadline: float) -> float:
        return deadline - self._limits.grading_reserve_s

    def _sampler(self, ticket: Ticket, temperature: float, *, attempt: int, trace_id: str) -> Sampler:
        async def sample(messages: Sequence[Message], number: int) -> Turn:
            # Read before the request leaves: the oldest policy that can have served it.
            asked_at = self._policy.current.version
            seed = derive(self._sampling.seed, ticket.purpose, ticket.group, ticket.member, attempt, number)
            request = ChatRequest(
                model=self._gateway.model,
                messages=messages,
                max_tokens=self._sampling.max_tokens,
                temperature=temperature,
                top_p=self._sampling.top_p,
                stop=self._sampling.stop or None,
                seed=seed,
            )
            completion = await self._gateway.chat(request, trace_id=trace_id)
            choice = completion.choices[0]
            text = choice.message.content or ""
            logprobs = tuple(choice.token_logprobs)
            if choice.token_ids is None or choice.prompt_token_ids is None:
                return Turn(text=text, sample=None)
            if len(logprobs) != len(choice.token_ids) or not all(map(math.isfinite, logprobs)):
                return Turn(text=text, sample=None)  # a service would refuse the whole batch for it
            drawn = Sample(
                prompt_token_ids=tuple(choice.prompt_token_ids),
                output_token_ids=tuple(choice.token_ids),
                logprobs=logprobs,
                version=self._policy.version_of(completion.system_fingerprint, asked_at=asked_at),
            )
            return Turn(text=text, sample=drawn)

        return sample


def _how(cut: bool, transcript: Transcript) -> Outcome:
    if cut:
        return Outcome.CUT_SHORT
    return Outcome.MAX_TURNS if transcript.out_of_turns else Outcome.FINISHED
