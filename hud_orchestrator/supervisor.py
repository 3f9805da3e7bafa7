"""Wire the stages together, own the task group, answer signals.

    tasks ==> source ==Ticket==> rollout xN ==Rollout==> collect ==Batch==> train ==Step==> promote
                ^                  ^    \\                   |                 |               |  |
                |                  |     store.trajectories |             store.ledger        |  |
                |                  +------- policy cell (read; one writer) -------------------+  |
                +------------------------- permits: given back "trained" ------------------------+
                +------------------------- permits: given back "dropped" <-- collect

    stage    takes    waits for             unblocked by                   ends when
    source   tasks    a permit              promote / collect give back    rollout stops listening
    rollout  Ticket   a ticket, a slot      source; collect receiving      input closed, workers idle
    collect  Rollout  a rollout             any worker                     input closed; train has left
    train    Batch    a batch, the service  collect; the service           input closed; last step taken
    promote  Step     a step                train                          input closed, or the run goes back
                                                                           or pauses: cancels the rest

Streams have no buffer, but for that of whole batches: collect must go on to write what is graded while train
is busy, and a batch holds the permits of its groups, which bound how many there are. Leaving a stage closes
both its streams, so an end travels both ways. The first SIGINT or SIGTERM drains: sampling is cancelled,
the step in hand is finished. The second one, or the end of ``run.drain_s``, cancels everything. Beside the
stages, ``rows`` makes rows of what collect has noted, while a training call is under way.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import create_memory_object_stream, create_task_group

from hud_orchestrator.assembly import needs_spread, treatments
from hud_orchestrator.attempt import Attempts
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.evaluation import Evaluator
from hud_orchestrator.feedback import Drain, Permits, PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Batch, Policy, Rollout, Step, Ticket
from hud_orchestrator.resume import Standing
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.curriculum import Curriculum
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.rules.order import Order
from hud_orchestrator.stages.collect import Desk, collect
from hud_orchestrator.stages.promote import promote
from hud_orchestrator.stages.rollout import rollout
from hud_orchestrator.stages.source import source
from hud_orchestrator.stages.train import Trainer, train
from hud_orchestrator.store.store import Store
from hud_orchestrator.tasksets.parts import RunTasks
from hud_orchestrator.watch import Watch

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Everything the stages share."""

    run: RunFile
    order: Order
    attempter: Attempts
    dispatch: Dispatch
    trainer: Trainer
    policy: PolicyCell
    store: Store
    standing: Standing
    evaluator: Evaluator | None
    watch: Watch
    tasks: RunTasks
    board: Scoreboard
    drain: Drain


async def run_pipeline(pipeline: Pipeline) -> None:
    """Run the five stages until the last step is promoted, the run drains, or its watch objects."""
    run, standing, board, drain = pipeline.run, pipeline.standing, pipeline.board, pipeline.drain
    cutter = batch_cutter(run, standing)
    permits = Permits(
        groups_per_step=run.rollout.groups_per_step,
        staleness=run.pipeline.staleness,
        held={group.number for group in standing.waiting} | cutter.wasted_before,
    )
    board.begun = lambda: permits.held
    tickets, tickets_out = create_memory_object_stream[Ticket](0)
    rollouts, rollouts_out = create_memory_object_stream[Rollout](0)
    batches, batches_out = create_memory_object_stream[Batch](math.inf)
    steps, steps_out = create_memory_object_stream[Step](0)

    sampling = anyio.CancelScope()
    desk = Desk(
        grading=grading_rule(run), cutter=cutter, permits=permits, trajectories=pipeline.store.trajectories,
        dispatch=pipeline.dispatch, last_step=run.run.steps,
    )  # fmt: skip

    async def sample() -> None:
        async with tickets, tickets_out, rollouts:
            with sampling, drain.interruptible():
                async with create_task_group() as both:
                    both.start_soon(partial(
                        source, tickets, order=pipeline.order, group_size=run.rollout.group_size,
                        permits=permits, ended=standing.ended, waiting={g.number for g in standing.waiting},
                        begun={g.number: g for g in standing.begun},
                    ), name="source")  # fmt: skip
                    both.start_soon(partial(
                        rollout, tickets_out, rollouts, attempter=pipeline.attempter,
                        temperature=run.agent.temperature, workers=permits.total * run.rollout.group_size,
                        board=board,
                    ), name="rollout")  # fmt: skip

    async def judge() -> None:
        await collect(
            rollouts_out, batches, groups=GroupTable(standing.begun), desk=desk,
            waiting=standing.waiting,
        )  # fmt: skip
        # An attempt may have minutes to go before its worker would notice that nobody listens.
        sampling.cancel("the last batch is cut")

    async with rollouts_out, batches, batches_out, steps, steps_out, create_task_group() as stages:
        stages.start_soon(sample, name="sampling")
        stages.start_soon(judge, name="collect")
        stages.start_soon(pipeline.store.trajectories.keep_up, name="rows")
        stages.start_soon(partial(
            train, batches_out, steps, trainer=pipeline.trainer, last_step=run.run.steps, drain=drain
        ), name="train")  # fmt: skip
        await promote(
            steps_out, policy=pipeline.policy, permits=permits, consumed=partial(learn_from, pipeline),
            evaluate=partial(evaluate_when_due, pipeline), interrupted=pipeline.watch.objects, board=board,
        )  # fmt: skip
        # Train has left, so no batch that is still being filled will be trained on.
        stages.cancel_scope.cancel("no further step")


def grading_rule(run: RunFile) -> GradingRule:
    """The run file's treatment of rewards."""
    return GradingRule(
        treatments=treatments(run),
        scale_by=run.rollout.scale_by,
        # Imitation, for one, needs no spread: it does not look at rewards.
        drop_no_spread=run.pipeline.drop_no_spread and needs_spread(run),
    )


def batch_cutter(run: RunFile, standing: Standing) -> BatchCutter:
    """The run file's rule for cutting batches, at the step after the last consumed one."""
    return BatchCutter(
        next_step=standing.policy.version + 1,
        groups_per_step=run.rollout.groups_per_step,
        replacements=run.replacements,
        staleness=run.pipeline.staleness,
        dropped=standing.dropped,
    )


async def learn_from(pipeline: Pipeline, step: Step) -> None:
    """Let the guards know of a consumed step, and the curriculum how its groups did."""
    pipeline.watch.saw(step)
    curriculum, board = pipeline.order, pipeline.board
    if not isinstance(curriculum, Curriculum):
        return
    curriculum.consume(await pipeline.store.trajectories.visits(first=step.number, last=step.number))
    before, board.curriculum = board.curriculum, curriculum.counts()
    settled = ("solved", "hopeless")
    if before is None or any(before[name] != board.curriculum[name] for name in settled):
        log.info("curriculum.changed", step=step.number, **board.curriculum)


async def evaluate_when_due(pipeline: Pipeline, policy: Policy) -> None:
    """Evaluate before the first step, every N steps and after the last; a drain cuts it off."""
    run, evaluator = pipeline.run, pipeline.evaluator
    due = policy.version % run.evaluation.every == 0 or policy.version == run.run.steps
    known = any(version == policy.version for version, _ in pipeline.board.evaluations)
    if evaluator is None or known or not due:
        return
    with pipeline.drain.interruptible():
        await evaluator.evaluate(policy)


async def watch_signals(
    drain: Drain, everything: anyio.CancelScope, *, drain_s: float, board: Scoreboard
) -> None:
    """Drain on the first SIGINT or SIGTERM; cancel everything on the second, or when time is up."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            name = signal.Signals(number).name
            if drain.requested:
                log.warning("run.aborting", signal=name)
                # In the past, so that a second signal and the end of the time look the same.
                everything.deadline = anyio.current_time()
                return
            log.info("run.draining", signal=name, limit_s=drain_s)
            everything.deadline = anyio.current_time() + drain_s
            board.phase = "finishing the step in hand; once more to abort"
            drain.request()
