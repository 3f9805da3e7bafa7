"""Steps become policy: publish the head, give permits back, and evaluate when it is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio.streams.memory import MemoryObjectReceiveStream

from hud_orchestrator.feedback import Permits, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Policy, Step

log = get_logger()


async def promote(
    steps: MemoryObjectReceiveStream[Step],
    *,
    policy: PolicyCell,
    permits: Permits,
    consumed: Callable[[Step], Awaitable[None]],
    evaluate: Callable[[Policy], Awaitable[None]],
    interrupted: Callable[[], Awaitable[bool]],
    board: Scoreboard,
) -> None:
    """Publish one policy per step, in order. The step after may be applied once this one is settled.

    *consumed* is told of a step before its permits come back, so that the groups which they admit know.
    *interrupted* says whether the run has to go back, or to pause: then this returns, and as the step is
    not settled, no step after it is in hand.
    """
    async with steps:
        async for step in steps:
            await consumed(step)
            policy.publish(step.policy)
            permits.give_back(step.batch.holders, reason="trained")
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
            if await interrupted():
                return
            policy.settle(step.number)
