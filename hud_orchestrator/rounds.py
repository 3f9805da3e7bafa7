"""The pipeline until the last step, and anew from an earlier one whenever the run goes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from hud_orchestrator.assembly import make_curriculum, make_order
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.resume import Standing, standing, without_stale
from hud_orchestrator.rules.order import Order
from hud_orchestrator.store.history import ConsumedStep, Evaluation, History
from hud_orchestrator.store.store import Store
from hud_orchestrator.supervisor import Pipeline, evaluate_when_due, run_pipeline
from hud_orchestrator.tasksets.parts import RunTasks

log = get_logger()


async def train_to_the_end(pipeline: Pipeline) -> None:
    """Train until the last step, a pause or a drain; go back and go on where somebody asks for that."""
    board, watch = pipeline.board, pipeline.watch
    while True:
        stand = pipeline.standing
        board.phase = "evaluating"
        await evaluate_when_due(pipeline, stand.policy)
        board.phase = "training"
        board.training_since = time.monotonic()
        # What a guard would have done before a kill, it does now.
        if not await watch.objects() and stand.policy.version < pipeline.run.run.steps:
            await run_pipeline(pipeline)
        if pipeline.drain.requested or watch.paused or await pipeline.store.rollbacks.asked() is None:
            return
        board.phase = "going back"
        pipeline = await _rewound(pipeline)


async def _rewound(pipeline: Pipeline) -> Pipeline:
    """The pipeline at the step that it is asked to go back to; by the very way that a start takes."""
    before, store = pipeline.standing, pipeline.store
    went_back = await standing(
        settler=pipeline.trainer.settler,
        model=before.model,
        base=None,  # nothing is forked: a step is over
        keeps_gradients=True,
        trajectories=store.trajectories,
        rollbacks=store.rollbacks,
    )
    stand = await without_stale(went_back, store.trajectories, staleness=pipeline.run.pipeline.staleness)
    pipeline.policy.go_back(stand.policy, history=stand.versions, abandoned=stand.abandoned)
    await restore_board(pipeline.board, store.history, stand=stand)
    await pipeline.watch.load()
    order = await order_of(pipeline.run, pipeline.tasks, stand, store, pipeline.board)
    return replace(pipeline, standing=stand, order=order)


async def order_of(run: RunFile, tasks: RunTasks, stand: Standing, store: Store, board: Scoreboard) -> Order:
    """Which task stands where; a curriculum knows what the consumed steps have shown."""
    order = make_order(run, tasks.train)
    curriculum = make_curriculum(run, order, tasks.all_train)
    if curriculum is None:
        return order
    curriculum.consume(await store.trajectories.visits(last=stand.policy.version))
    board.curriculum = curriculum.counts()
    return curriculum


async def restore_board(board: Scoreboard, history: History, *, stand: Standing | None = None) -> None:
    """Show on *board* where the run stands; without *stand* it has taken all its steps."""
    steps = await history.steps()
    board.step = board.first_step = steps[-1].number if steps else 0
    board.rewards = [step.metrics.get("reward_mean", 0.0) for step in steps]
    board.evaluations = [(e.version, e.reward) for e in await history.evaluations()]
    if stand is not None:
        _tell_of_rollback(board, stand)
    _catch_up(board, steps, await history.evaluations())
    if stand is None:
        return
    if steps:
        log.info("run.resumed", after_step=stand.policy.version)
    for group in (*stand.waiting, *stand.begun):
        log.info("group.readmitted", group=group.number, members=len(group.rollouts), whole=group.whole)


def _tell_of_rollback(board: Scoreboard, stand: Standing) -> None:
    """Write that the lines after this step are of a branch, also when a kill came before that was told."""
    last, _ = board.written()
    if last > stand.policy.version:
        back = {"kind": "rollback", "step": stand.policy.version, "checkpoint": stand.policy.checkpoint}
        board.record({**back, "reason": stand.went_back.reason if stand.went_back else None})


def _catch_up(board: Scoreboard, steps: Sequence[ConsumedStep], evaluations: Sequence[Evaluation]) -> None:
    """Write the lines that a kill has cost: what they tell is in the store, but for how long it took."""
    last, evaluated = board.written()
    head = next((step.checkpoint for step in reversed(steps[:last]) if step.checkpoint), None)
    measured = {one.version: one for one in evaluations if one.version not in evaluated}
    for step in steps[last:]:
        head = step.checkpoint or head
        board.record(
            {
                **step.metrics,
                "kind": "step",
                "step": step.number,
                "checkpoint": head,
                "skipped": step.checkpoint is None,
                "learning_rate": step.learning_rate if step.checkpoint else 0.0,
                "recovered": True,
            }
        )
        if (found := measured.pop(step.number, None)) is not None:
            _record(board, found)
    for found in measured.values():
        _record(board, found)


def _record(board: Scoreboard, found: Evaluation) -> None:
    board.record(
        {
            "kind": "evaluation",
            "step": found.version,
            "checkpoint": found.checkpoint,
            "reward": found.reward,
            "graded": found.graded,
            "attempted": found.attempted,
            "seconds": round(found.seconds, 3),
            "recovered": True,
        }
    )
