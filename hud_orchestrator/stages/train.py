"""Batches become steps, by calls that are never repeated.

A step is planned in the ledger, its gradient is accumulated, and one ``optim_step`` applies it. A loss
of the service takes one ``forward_backward`` per group size (one, unless members were masked); a loss
of ours takes one ``forward`` and one ``backward`` for the whole batch. A failed or unknown call fences
the step: no ``optim_step`` is sent on top of it, nor on a gradient a part of which may be gone. What
became of it is settled here, and the step done again or dropped; only a step on a fresh fork, which has
no head to be set back to, ends the run where the service gives no leases.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.client_loss import Differentiate
from hud_orchestrator.clients.training import Training
from hud_orchestrator.errors import (
    FencedOff,
    OutcomeUnknown,
    RequestRejected,
    RunFailed,
    ServiceBusy,
    ServiceUnreachable,
)
from hud_orchestrator.feedback import Drain, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.losses.unusable import LossNotFinite
from hud_orchestrator.records import Batch, Ending, Outcome, Policy, Step
from hud_orchestrator.rules.guards import NOT_FINITE, not_finite
from hud_orchestrator.rules.requests import (
    Recipe,
    forward_backward_requests,
    forward_request,
    optim_step_request,
    spread,
    with_groups,
)
from hud_orchestrator.rules.settlement import Applied, signed
from hud_orchestrator.settling import Flawed, Settler, norms
from hud_orchestrator.store.ledger import CallKind, Ledger, PlannedStep
from hud_orchestrator.streams import offer
from hud_orchestrator.wire import BackwardRequest, ForwardBackwardResult

T = TypeVar("T")

UNSENT_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits before a call is made anew of which provably nothing was sent; then the run gives up."""

ATTEMPTS = 5
"""At one step before the run gives up; whatever spoils that many in a row will spoil the next."""

CONFLICT = 409
"""There is nothing to step on: the service has lost what it had accumulated."""

UNKNOWN = 404
"""The service does not know what the request names: a forward, or traces, of before it was started anew."""

log = get_logger()


class _GradientDoubted(OutcomeUnknown):
    """No call of a step was lost, and what an earlier one left may be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What a step needs: the service, the ledger and the run file's numbers."""

    training: Training
    ledger: Ledger
    settler: Settler
    policy: PolicyCell
    learning_rate: Callable[[int], float]
    """Of a step; read anew whenever it is needed, and the same while the step is in hand."""
    recipe: Recipe
    not_finite: frozenset[str]
    """Figures that a guard watches for not being finite. A step of which one may be so, as the service
    refuses it ``ATTEMPTS`` times or nothing of ours can be sent, is skipped; else the run ends."""
    kept: Callable[[], Awaitable[Collection[str]]]
    """Checkpoints that the run may still want to go back to."""
    differentiate: Differentiate | None = None
    """The loss, when it is computed here and not by the service."""

    @property
    def can_redo(self) -> bool:
        """Whether what the step in hand leaves can be dropped, at worst with the fork that has it."""
        return self.policy.current.checkpoint is not None or self.settler.can_drop


async def train(
    batches: MemoryObjectReceiveStream[Batch],
    steps: MemoryObjectSendStream[Step],
    *,
    trainer: Trainer,
    last_step: int,
    drain: Drain,
) -> None:
    """Take one step per batch, until the budget is used up or the run drains.

    Raises:
        OutcomeUnknown: an attempt was lost, and cannot be settled while the run goes on.
        HeadMoved, FencedOff: somebody else trains the model.
    """
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
    """One step, however many attempts it takes."""
    began, refusals = anyio.current_time(), 0
    for left in reversed(range(ATTEMPTS)):
        plan = await _plan(trainer, batch)
        taken: Step | None
        try:
            taken = await _attempt(trainer, batch, plan)
        except (OutcomeUnknown, RequestRejected, Flawed) as error:
            _check_mendable(batch, error)
            refusals += isinstance(error, RequestRejected)
            told = (await _open(trainer)).metrics
            suspects = not_finite(told) if refusals == ATTEMPTS else frozenset[str]()
            hopeless = not suspects.isdisjoint(trainer.not_finite)
            taken = await _settled(trainer, batch, error, last=left == 0 and not hopeless)
            if hopeless and taken is None:
                taken = await _not_finite(trainer, batch, told=told, suspects=suspects)
        if taken is not None:
            return replace(taken, seconds=anyio.current_time() - began)
    raise AssertionError("the last attempt returns or raises")


def _check_mendable(batch: Batch, error: Exception) -> None:
    """Raise what another attempt at the step cannot mend."""
    status = getattr(error, "status", CONFLICT)
    if status == UNKNOWN and any(m.rollout.remote for group in batch.groups for m in group.members):
        raise OutcomeUnknown(
            f"step {batch.step} was refused: {error}; the service may have been started anew since it "
            "sampled these; run again, and what it no longer knows is left out"
        ) from error
    if isinstance(error, FencedOff) or status != CONFLICT:
        raise error


async def _not_finite(
    trainer: Trainer, batch: Batch, *, told: Mapping[str, float], suspects: Collection[str]
) -> Step:
    """Skip a step that the service refuses whenever it is tried: one of *suspects* is not finite."""
    metrics = {**told, **_batch_metrics(batch), **dict.fromkeys(suspects, math.nan)}
    numbers = [group.number for group in batch.groups]
    await trainer.ledger.skipped(
        await _plan(trainer, batch), metrics=metrics, groups=numbers, ending=Ending.NOT_FINITE
    )
    return _step(trainer, batch, None, metrics)


async def _plan(trainer: Trainer, batch: Batch) -> int:
    return await trainer.ledger.plan(
        batch.step,
        groups=[group.number for group in batch.groups],
        digest=_digest(batch),
        head_before=trainer.policy.current.checkpoint,
        learning_rate=_asked_rate(trainer, batch),
        metrics=_batch_metrics(batch),
    )


async def _attempt(trainer: Trainer, batch: Batch, plan: int) -> Step:
    numbers = [group.number for group in batch.groups]
    silent, figures = await _accumulate(trainer, batch, plan)
    # The service knows the groups that it was sent; our own figures are about all that were tried.
    metrics = figures | _batch_metrics(batch)
    if silent is not None:
        # Nothing else looks at the head in this step, and a late request of ours that moved it would have
        # everything sampled from an old policy: one batch after the other would be empty.
        await trainer.settler.regain("the model", trainer.policy.current.checkpoint)
        await trainer.ledger.skipped(plan, metrics=metrics, groups=numbers, ending=silent)
        return _step(trainer, batch, None, metrics)
    request = optim_step_request(trainer.recipe, learning_rate=_asked_rate(trainer, batch))
    send = partial(trainer.training.optim_step, request, keep=await trainer.kept())
    answer = await _once(trainer.ledger, "optim_step", plan, send)
    node = await trainer.settler.confirm(await _open(trainer), answer.checkpoint_id)
    metrics |= norms(node)
    await trainer.ledger.applied(plan, checkpoint=node.id, metrics=metrics, trained=numbers)
    return _step(trainer, batch, node.id, metrics)


async def _settled(trainer: Trainer, batch: Batch, error: Exception, *, last: bool) -> Step | None:
    """The step as it was found or dropped; ``None``: do it again."""
    # What was refused is not lost: it is done again, whatever the run file says of lost steps.
    refused = isinstance(error, RequestRejected | _GradientDoubted)
    step, settler = await _open(trainer), replace(trainer.settler, redo=trainer.settler.redo or refused)
    if not last and (step.head_before is not None or settler.writer.fences):
        log.warning("step.unsettled", step=step.number, reason=str(error))
        try:
            verdict = await settler.settle(step)
        except (ServiceBusy, ServiceUnreachable) as unreadable:
            raise OutcomeUnknown(
                f"{error}; and the checkpoint tree cannot be read: {unreadable}"
            ) from unreadable
        if isinstance(verdict, Applied):
            node = verdict.checkpoint
            return _step(trainer, batch, node.id, {**step.metrics, **norms(node)})
        trainer.policy.abandon(verdict.strays)
        if await trainer.ledger.open_step() is None:
            return None if settler.redo else _step(trainer, batch, None, step.metrics)
    raise OutcomeUnknown(f"step {step.number} cannot be settled while the run goes on: {error}") from error


async def _open(trainer: Trainer) -> PlannedStep:
    step = await trainer.ledger.open_step()
    assert step is not None
    return step


def _step(trainer: Trainer, batch: Batch, checkpoint: str | None, metrics: Mapping[str, float]) -> Step:
    before = trainer.policy.current.checkpoint
    return Step(
        number=batch.step,
        batch=batch,
        policy=Policy(version=batch.step, checkpoint=checkpoint or before),
        parent=before,
        learning_rate=trainer.learning_rate(batch.step) if checkpoint else 0.0,
        skipped=checkpoint is None,
        metrics=metrics,
        seconds=0.0,
    )


async def _accumulate(trainer: Trainer, batch: Batch, plan: int) -> tuple[Ending | None, dict[str, float]]:
    """Why there is no gradient to step on, or ``None``; and the figures of the loss."""
    spread_out = not trainer.recipe.needs_spread or any(spread(group) for group in batch.groups)
    if not batch.groups or not spread_out:
        return Ending.NO_SPREAD, {}
    if trainer.differentiate is not None:
        return await _by_our_loss(trainer, trainer.differentiate, batch, plan)
    figures: dict[str, float] = {}
    for nth, request in enumerate(forward_backward_requests(batch, trainer.recipe)):
        send, away = partial(trainer.training.forward_backward, request), _Away()
        answer = await _once(trainer.ledger, "forward_backward", plan, send, away)
        if nth > 0 and away.found and trainer.can_redo:
            raise _GradientDoubted(
                f"the service was away between two calls of step {batch.step}: it may have begun anew, "
                "without what the first one had accumulated"
            )
        # Of several calls, the figures of the first, which has the whole groups.
        figures = _figures(answer) | figures
    return None, figures


async def _by_our_loss(
    trainer: Trainer, differentiate: Differentiate, batch: Batch, plan: int
) -> tuple[Ending | None, dict[str, float]]:
    request = forward_request(batch, trainer.recipe)
    forward = await _once(trainer.ledger, "forward", plan, partial(trainer.training.forward, request))
    try:
        weights, figures = await anyio.to_thread.run_sync(differentiate, with_groups(forward.data, batch))
    except LossNotFinite as error:
        if not trainer.not_finite:
            raise RunFailed(
                f"trainer.loss: {error}; step {batch.step} was not taken: lower the learning rate, or let a "
                "guard watch for a loss that is not_finite"
            ) from error
        log.warning("step.not_finite", step=batch.step, reason=str(error))
        return Ending.NOT_FINITE, dict.fromkeys(NOT_FINITE, math.nan)
    except ValueError as error:
        raise RunFailed(f"trainer.loss: {error}; step {batch.step} was not taken") from error
    if not any(any(row) for row in weights):
        return Ending.NO_GRADIENT, figures
    backward = BackwardRequest(forward_id=forward.forward_id, weights=weights, metrics=figures)
    send = partial(trainer.training.backward, backward)
    try:
        return None, _figures(await _once(trainer.ledger, "backward", plan, send))
    except RequestRejected as error:
        if error.status != UNKNOWN:
            raise
        raise _GradientDoubted(f"the service has begun anew since the forward: {error}") from error


def _figures(result: ForwardBackwardResult) -> dict[str, float]:
    return {**result.metrics, **dict.fromkeys(result.not_finite, math.nan)}


@dataclass(slots=True)
class _Away:
    """Whether the service was found to be away."""

    found: bool = False


async def _once(
    ledger: Ledger,
    kind: CallKind,
    plan: int,
    send: Callable[..., Awaitable[T]],
    away: _Away | None = None,
) -> T:
    """One call, and another only after proof that nothing of the last one was sent, which *away* is told."""
    waits = iter(UNSENT_WAITS_S)
    while True:
        try:
            async with ledger.one_shot(kind, plan=plan) as opened:
                answer = await send(call=opened.id)
                opened.num_datums = getattr(answer, "num_datums", None)
                opened.checkpoint = getattr(answer, "checkpoint_id", None)
                if isinstance(answer, ForwardBackwardResult):
                    opened.figures = _figures(answer)
                return answer
        except ServiceUnreachable as error:
            wait_s = next(waits, None)
            if wait_s is None:
                raise
            if away is not None:
                away.found = True
            log.warning("call.repeated", kind=kind, reason=str(error), wait_s=wait_s)
            await anyio.sleep(wait_s)


def _batch_metrics(batch: Batch) -> dict[str, float]:
    count = len(batch.rewards)
    mean = sum(batch.rewards) / count if count else 0.0
    variance = sum((reward - mean) ** 2 for reward in batch.rewards) / count if count else 0.0
    tried = sum(batch.outcomes.values())
    ages = [batch.step - 1 - group.oldest_version for group in batch.groups]
    return {
        "reward_mean": mean,
        "reward_std": variance**0.5,
        "rollouts": float(count),
        "cut_short_share": batch.outcomes.get(Outcome.CUT_SHORT, 0) / tried if tried else 0.0,
        "failed_share": 1 - count / tried if tried else 0.0,
        "groups_trained": float(len(batch.groups)),
        "groups_dropped": float(sum(batch.dropped.values())),
        "staleness_mean": sum(ages) / len(ages) if ages else 0.0,
        "staleness_max": float(max(ages, default=0)),
    }


def _asked_rate(trainer: Trainer, batch: Batch) -> float:
    rate = trainer.learning_rate(batch.step)
    # Without leases, somebody else may step on the same head by as many datums.
    return rate if trainer.settler.writer.fences else signed(rate, _digest(batch))


def _digest(batch: Batch) -> str:
    traces = [[(m.rollout.trace_id, m.reward) for m in group.members] for group in batch.groups]
    return hashlib.sha256(json.dumps(traces).encode()).hexdigest()
