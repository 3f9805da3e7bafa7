"""The witness that tells a service about every attempt, beside the run and never in its way.

Being told costs the attempt a place in a queue; letters are written and delivered by tasks of their own.
When there is no room an attempt is not reported at all, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import anyio
from pydantic import SecretStr

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.records import Outcome, Rollout, Ticket, Treatment
from hud_orchestrator.reporting.delivery import LANES, Delivery, Notice
from hud_orchestrator.reporting.letters import Job, Letter, ended, told
from hud_orchestrator.reporting.tally import Tally

HURRIED_S = 1.0
"""Seconds for what is waiting when the run was cut off."""

KEPT_TOKENS = 4_000_000
"""Tokens of the rollouts that wait to be told about; beyond them, their steps are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is told, where, and how much may wait."""

    api_url: str
    telemetry_url: str
    api_key: SecretStr
    spans: Literal["tokens", "steps", "none"]
    queue: int
    flush_s: float


class Reporter:
    """Tells about attempts."""

    def __init__(
        self,
        delivery: Delivery,
        *,
        job: Job,
        terms: Terms,
        policy: PolicyCell,
        treatments: Mapping[Outcome, Treatment],
        tally: Tally,
    ) -> None:
        self._delivery = delivery
        self._job = job
        self._terms = terms
        self._policy = policy
        self._treatments = treatments
        self._tally = tally
        self._versions: dict[str, int] = {}
        """Of the policy, when each attempt began that is told about and has not ended."""

    def began(self, ticket: Ticket, *, trace_id: str) -> None:
        """An attempt begins."""
        if self._delivery.waiting >= self._terms.queue:
            self._tally.dropped(self._delivery.why(f"{self._terms.queue} reports are waiting already"))
            return
        version = self._versions[trace_id] = self._policy.current.version
        self._delivery.put(
            Notice(
                trace_id=trace_id,
                write=lambda: [self._job.began(ticket, trace_id, version=version)],
                last=False,
            )
        )

    def ended(self, rollout: Rollout) -> None:
        """What became of an attempt. There is room: it was told about when it began."""
        version = self._versions.pop(rollout.trace_id, None)
        if version is None:
            return
        weight = sum(len(one.prompt_token_ids) + len(one.output_token_ids) for one in rollout.samples)
        spans = self._terms.spans != "none"
        if spans and self._delivery.weight + weight > KEPT_TOKENS:
            self._tally.without_steps()
            spans, weight = False, 0
        self._delivery.put(
            Notice(
                trace_id=rollout.trace_id,
                write=lambda: self._letters(rollout, version=version, spans=spans),
                last=True,
                weight=weight,
            )
        )

    def _letters(self, rollout: Rollout, *, version: int, spans: bool) -> Iterator[Letter]:
        yield ended(rollout, treatments=self._treatments, version=version)
        if spans:
            yield from told(rollout, tokens=self._terms.spans == "tokens")


@asynccontextmanager
async def reporting(
    job: Job,
    terms: Terms,
    *,
    policy: PolicyCell,
    treatments: Mapping[Outcome, Treatment],
    counts: Counter[str],
) -> AsyncGenerator[Reporter, None]:
    """A reporter for the length of the block; leaving it waits a bounded time for the last reports."""
    tally = Tally(counts)
    async with (
        Transport(terms.api_url, terms.api_key, connections=LANES) as api,
        Transport(terms.telemetry_url, terms.api_key, connections=LANES) as telemetry,
        anyio.create_task_group() as crew,
    ):
        delivery = Delivery(job=job.entered(), api=api, telemetry=telemetry, tally=tally)
        crew.start_soon(delivery.work, name="reports")
        hurried = True
        try:
            yield Reporter(delivery, job=job, terms=terms, policy=policy, treatments=treatments, tally=tally)
            hurried = False
        finally:
            await delivery.close(within_s=min(terms.flush_s, HURRIED_S) if hurried else terms.flush_s)
            tally.dropped(delivery.why("the run was over"), count=delivery.left)
