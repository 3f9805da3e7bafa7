"""Batches become steps, by calls that are never repeated.

A step is planned in the ledger, its gradient is accumulated, and one ``optim_step`` applies it. A loss
of the service takes one ``forward_backward`` per group size (one, unless members were masked); a loss
of ours takes one ``forward`` and one ``backward`` for the whole batch. A failed or unknown call fences
the step: the exception leaves this stage, and no ``optim_step`` is sent on top of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.client_loss import Differentiate
from hud_orchestrator.clients.training import Training
from hud_orchestrator.errors import RunFailed, ServiceUnreachable
from hud_orchestrator.feedback import Drain, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Batch, Ending, Policy, Step
from hud_orchestrator.rules.requests import (
    Recipe,
    forward_backward_requests,
    forward_request,
    optim_step_request,
    spread,
    with_groups,
)
from hud_orchestrator.rules.schedule import Schedule
from hud_orchestrator.store.ledger import CallKind, Ledger
from hud_orchestrator.streams import offer
from hud_orchestrator.wire import BackwardRequest

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
    differentiate: Differentiate | None = None
    """The loss, when it is computed here and not by the service."""


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
    silent, figures = await _accumulate(trainer, batch, plan)
    # The service knows the groups that it was sent; our own figures are about all that were tried.
    metrics = figures | metrics
    if silent is None:
        request = optim_step_request(trainer.recipe, learning_rate=learning_rate)
        send = partial(trainer.training.optim_step, request)
        checkpoint = (await _once(trainer.ledger, "optim_step", plan, send)).checkpoint_id
        await trainer.ledger.applied(plan, checkpoint=checkpoint, metrics=metrics, trained=numbers)
        policy = Policy(version=batch.step, checkpoint=checkpoint)
    else:
        await trainer.ledger.skipped(plan, metrics=metrics, groups=numbers, ending=silent)
        policy = Policy(version=batch.step, checkpoint=before.checkpoint)
    return Step(
        number=batch.step,
        batch=batch,
        policy=policy,
        parent=before.checkpoint,
        learning_rate=learning_rate if silent is None else 0.0,
        skipped=silent is not None,
        metrics=metrics,
        seconds=anyio.current_time() - began,
    )


async def _accumulate(trainer: Trainer, batch: Batch, plan: int) -> tuple[Ending | None, dict[str, float]]:
    """Why there is no gradient to step on, or ``None``; and the figures of the loss."""
    spread_out = not trainer.recipe.needs_spread or any(spread(group) for group in batch.groups)
    if not batch.groups or not spread_out:
        return Ending.NO_SPREAD, {}
    if trainer.differentiate is not None:
        return await _by_our_loss(trainer, trainer.differentiate, batch, plan)
    figures: dict[str, float] = {}
    for request in forward_backward_requests(batch, trainer.recipe):
        send = partial(trainer.training.forward_backward, request)
        # Of several calls, the figures of the first, which has the whole groups.
        figures = (await _once(trainer.ledger, "forward_backward", plan, send)).metrics | figures
    return None, figures


async def _by_our_loss(
    trainer: Trainer, differentiate: Differentiate, batch: Batch, plan: int
) -> tuple[Ending | None, dict[str, float]]:
    request = forward_request(batch, trainer.recipe)
    forward = await _once(trainer.ledger, "forward", plan, partial(trainer.training.forward, request))
    try:
        weights, figures = await anyio.to_thread.run_sync(differentiate, with_groups(forward.data, batch))
    except ValueError as error:
        raise RunFailed(f"trainer.loss: {error}; step {batch.step} was not taken") from error
    if not any(any(row) for row in weights):
        return Ending.NO_GRADIENT, figures
    backward = BackwardRequest(forward_id=forward.forward_id, weights=weights, metrics=figures)
    send = partial(trainer.training.backward, backward)
    return None, (await _once(trainer.ledger, "backward", plan, send)).metrics


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
