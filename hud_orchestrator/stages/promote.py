"""Steps become policy: confirm the head, publish it, give permits back, and evaluate when it is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from hud_orchestrator.clients.catalog import Catalog, head
from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.feedback import Permits, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Policy, Step

LAG_S = 60
"""Seconds that a checkpoint list may lag behind the answer of the step that it should show."""
LAG_WAIT_S = 1.0

log = get_logger()


async def promote(
    steps: MemoryObjectReceiveStream[Step],
    *,
    catalog: Catalog,
    model_id: str,
    policy: PolicyCell,
    permits: Permits,
    consumed: Callable[[Step], Awaitable[None]],
    evaluate: Callable[[Policy], Awaitable[None]],
    board: Scoreboard,
) -> None:
    """Publish one policy per step, in order. The step after may be applied once this one is settled.

    *consumed* is told of a step before its permits come back, so that the groups which they admit know.
    """
    async with steps:
        async for step in steps:
            if not step.skipped:
                await _confirm(catalog, model_id, step)
            await consumed(step)
            policy.publish(step.policy)
            permits.give_back(step.batch.permits, reason="trained")
            board.step_ended(step)
            log.info(
                "step.skipped" if step.skipped else "step.taken",
                step=step.number,
                checkpoint=step.policy.checkpoint,
                reward=round(step.metrics["reward_mean"], 4),
                groups=len(step.batch.groups),
                seconds=round(step.seconds, 3),
            )
            await evaluate(step.policy)
            policy.settle(step.number)


async def _confirm(catalog: Catalog, model_id: str, step: Step) -> None:
    """Wait until the tree shows the step's checkpoint as its head, on top of the head before it.

    Raises:
        HeadMoved: it is not there, not the head, or made on top of something else.
    """
    expected = step.policy.checkpoint
    until = anyio.current_time() + LAG_S
    while True:
        active = head(await catalog.checkpoints(model_id))
        if active is not None and active.id == expected:
            break
        if anyio.current_time() >= until:
            raise HeadMoved(
                f"step {step.number} made checkpoint {expected}, and the head is "
                f"{active.id if active else 'unset'}: somebody else moves this model's head; "
                "give each run a slug of its own"
            )
        await anyio.sleep(LAG_WAIT_S)
    if step.parent is not None and active.prev_model_checkpoint_id != step.parent:
        raise HeadMoved(
            f"step {step.number} was sampled from checkpoint {step.parent} and applied to "
            f"{active.prev_model_checkpoint_id}: somebody else trains this model; "
            "give each run a slug of its own"
        )
