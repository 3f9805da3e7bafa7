"""Go back to an earlier step: the one transaction, whoever asked for it and whenever.

asked (on disk) -> the head is set -> the history is cut, in the store -> the run goes on from there

Nothing else may be going on: no step is in hand, and nobody samples. Whatever ends the daemon on the way,
the next start does it again from its beginning, and every part of it can be done twice.
"""

from __future__ import annotations

from hud_orchestrator.errors import RequestRejected, RunFailed
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Target
from hud_orchestrator.rules.rollback import Line, best
from hud_orchestrator.settling import Settler
from hud_orchestrator.store.history import History
from hud_orchestrator.store.rollbacks import Rollback, Rollbacks

GONE = (404, 410)
"""The service has no such checkpoint, or has pruned it."""

log = get_logger()


async def line_of(history: History) -> Line:
    """The steps that are over, as they stand."""
    return Line(first_head=await history.get("first_head") or None, checkpoints=await history.made())


async def best_of(history: History) -> Target | None:
    """The best checkpoint of the present line."""
    evaluations = {one.version: one.reward for one in await history.evaluations()}
    rewards = {step.number: step.metrics.get("reward_mean", 0.0) for step in await history.steps()}
    return best(await line_of(history), evaluations=evaluations, rewards=rewards)


async def go_back_if_asked(settler: Settler, rollbacks: Rollbacks, *, model_name: str) -> Rollback | None:
    """Do what is asked for, and return it; ``None``: nothing was.

    Raises:
        HeadMoved, FencedOff: somebody else trains the model, or moved its head.
        RunFailed: the run cannot go back there; asked again, it goes on as if nothing had been asked for.
    """
    rollback = await rollbacks.asked()
    if rollback is None:
        return None
    line, target = await line_of(settler.history), rollback.target
    head = line.head(line.last)
    log.info("rollback.begun", step=target.step, checkpoint=target.checkpoint, reason=rollback.reason)
    if not target.step <= line.last or line.head(target.step) != target.checkpoint:
        await _refuse(rollbacks, rollback, "the run has gone back to before it meanwhile")
    try:
        await settler.move_head(model_name, left_at=head, to=target.checkpoint)
    except RequestRejected as error:
        if error.status not in GONE:
            raise
        await _refuse(rollbacks, rollback, str(error))
    retired = await rollbacks.done(rollback, from_step=line.last, from_checkpoint=head)
    log.info(
        "rollback.finished",
        step=target.step,
        before=line.last,
        checkpoint=target.checkpoint,
        retired=retired,
        reason=rollback.reason,
    )
    return rollback


async def _refuse(rollbacks: Rollbacks, rollback: Rollback, detail: str) -> None:
    await rollbacks.refused(rollback, detail=detail)
    log.warning("rollback.refused", step=rollback.target.step, detail=detail)
    raise RunFailed(
        f"the run cannot go back to step {rollback.target.step} ({rollback.reason}): {detail}; ask for "
        "another step with hud-orchestrate rollback, or run again to go on where it stands"
    )
