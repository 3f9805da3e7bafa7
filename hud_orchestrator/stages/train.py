"""Batches become steps, by calls that are never repeated.

A step is planned in the ledger, its gradient is accumulated by one ``forward_backward`` per group
size (one, unless members were masked), and one ``optim_step`` applies it. A failed or unknown
``forward_backward`` fences the step: the exception leaves this stage, and no ``optim_step`` is sent
on top of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.clients.training import Training
from hud_orchestrator.errors import ServiceUnreachable
from hud_orchestrator.feedback import Drain, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Batch, Policy, Step
from hud_orchestrator.rules.requests import Recipe, forward_backward_requests, optim_step_request, spread
from hud_orchestrator.rules.schedule import Schedule
from hud_orchestrator.store.ledger import CallKind, Ledger
from hud_orchestrator.streams import offer

T = TypeVar("T")

UNSENT_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits before a call is made anew of which provably nothing was sent; then the run gives up."""

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What a step needs: the service, the ledger and the run file's numbers."""

    training: Training
    ledger: Ledger
    policy: PolicyCell
    schedule: Schedule
    recipe: Recipe


async def train(
    batches: MemoryObjectReceiveStream[Batch],
    steps: MemoryObjectSendStream[Step],
    *,
    trainer: Trainer,
    last_step: int,
    drain: Drain,
) -> None:
    """Take one step per batch, until the budget is used up or the run drains."""
    async with batches, steps:
        async for batch in batches:
            # The tree's head must be the one that the plan names, so the step before has to be over.
            await trainer.policy.settled(batch.step - 1)
            if drain.requested:
                return
            step = await _take(trainer, batch)
            if not await offer(steps, step) or step.number == last_step:
                return


async def _take(trainer: Trainer, batch: Batch) -> Step:
    began = anyio.current_time()
    before = trainer.policy.current
    learning_rate = trainer.schedule.learning_rate(batch.step)
    numbers = [group.number for group in batch.groups]
    metrics = _batch_metrics(batch)
    plan = await trainer.ledger.plan(
        batch.step,
        groups=numbers,
        digest=_digest(batch),
        head_before=before.checkpoint,
        learning_rate=learning_rate,
        metrics=metrics,
    )
    useful = trainer.recipe.loss == "cross_entropy" or any(spread(group) for group in batch.groups)
    if not batch.groups or not useful:
        await trainer.ledger.skipped(plan, metrics=metrics, flat=numbers)
        policy = Policy(version=batch.step, checkpoint=before.checkpoint)
        seconds = anyio.current_time() - began
        return Step(
            number=batch.step,
            batch=batch,
            policy=policy,
            parent=before.checkpoint,
            learning_rate=0.0,
            skipped=True,
            metrics=metrics,
            seconds=seconds,
        )
    # The service knows the groups that it was sent; our own figures are about all that were tried.
    metrics = await _accumulate(trainer, batch, plan) | metrics
    request = optim_step_request(trainer.recipe, learning_rate=learning_rate)
    result = await _once(trainer.ledger, "optim_step", plan, partial(trainer.training.optim_step, request))
    await trainer.ledger.applied(plan, checkpoint=result.checkpoint_id, metrics=metrics, trained=numbers)
    return Step(
        number=batch.step,
        batch=batch,
        policy=Policy(version=batch.step, checkpoint=result.checkpoint_id),
        parent=before.checkpoint,
        learning_rate=learning_rate,
        skipped=False,
        metrics=metrics,
        seconds=anyio.current_time() - began,
    )


async def _accumulate(trainer: Trainer, batch: Batch, plan: int) -> dict[str, float]:
    """The service's figures; of several calls, those of the first, which has the whole groups."""
    metrics: dict[str, float] = {}
    for request in forward_backward_requests(batch, trainer.recipe):
        send = partial(trainer.training.forward_backward, request)
        metrics = (await _once(trainer.ledger, "forward_backward", plan, send)).metrics | metrics
    return metrics


async def _once(ledger: Ledger, kind: CallKind, plan: int, send: Callable[..., Awaitable[T]]) -> T:
    """One call, and another only after proof that nothing of the last one was sent."""
    waits = iter(UNSENT_WAITS_S)
    while True:
        try:
            async with ledger.one_shot(kind, plan=plan) as call:
                return await send(call=call)
        except ServiceUnreachable as error:
            wait_s = next(waits, None)
            if wait_s is None:
                raise
            log.warning("call.repeated", kind=kind, reason=str(error), wait_s=wait_s)
            await anyio.sleep(wait_s)


def _batch_metrics(batch: Batch) -> dict[str, float]:
    count = len(batch.rewards)
    mean = sum(batch.rewards) / count if count else 0.0
    variance = sum((reward - mean) ** 2 for reward in batch.rewards) / count if count else 0.0
    ages = [batch.step - 1 - group.oldest_version for group in batch.groups]
    return {
        "reward_mean": mean,
        "reward_std": variance**0.5,
        "rollouts": float(count),
        "groups_trained": float(len(batch.groups)),
        "groups_dropped": float(sum(batch.dropped.values())),
        "staleness_mean": sum(ages) / len(ages) if ages else 0.0,
        "staleness_max": float(max(ages, default=0)),
    }


def _digest(batch: Batch) -> str:
    traces = [[(m.rollout.trace_id, m.reward) for m in group.members] for group in batch.groups]
    return hashlib.sha256(json.dumps(traces).encode()).hexdigest()
