"""Our loop, everything on: source, rollouts, collection, the store, grades and metrics. Prints a JSON line.

Run as ``python -m benchmarks.rollouts.ours '{"port": ..., "placement": ..., ...}'``, see :class:`Plan`.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO

import anyio
from anyio import create_memory_object_stream, create_task_group
from anyio.streams.memory import MemoryObjectReceiveStream
from pydantic import SecretStr

from benchmarks.rollouts.cost import Cost, costing, resident_mb
from benchmarks.rollouts.plan import Plan, figures
from hud_orchestrator import logs
from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.attempt import Attempter
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.feedback import Permits, PolicyCell
from hud_orchestrator.heap import quiet_heap
from hud_orchestrator.ladder import Limits
from hud_orchestrator.metrics import MetricsFile, Scoreboard
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Batch, Policy, Rollout, Task, Ticket
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.rules.order import TaskOrder
from hud_orchestrator.stages.collect import Desk, collect
from hud_orchestrator.stages.rollout import rollout
from hud_orchestrator.stages.source import source
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.tasksets.files import load_path

SOURCE = Path(__file__).parent / "environments" / "ours.py"
GROUP = 8
NEVER = 10**9


async def _main(plan: Plan) -> None:
    tasks = load_path(SOURCE, member="turns" if plan.tools else "single")
    logs.configure(stream=None, as_json=True, level="warning")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        url = f"http://127.0.0.1:{plan.port}"
        with (directory / "log").open("wb") as log_file:
            async with (
                Transport(url, SecretStr("bench"), connections=plan.concurrency + 10) as transport,
                _placed(plan, log_file) as placement,
            ):
                gateway = PacedGateway(Gateway(transport, model="bench"), most=plan.concurrency)
                dispatch = Dispatch(concurrency=plan.concurrency)
                attempter = _attempter(placement, gateway, dispatch)
                before = resident_mb()
                if plan.placement == "local":
                    await _start_processes(plan, tasks, attempter)
                cost, done = await _run(plan, tasks, attempter, directory, above_mb=before)
    print(json.dumps(figures(plan, cost, done)))


@asynccontextmanager
async def _placed(plan: Plan, log_file: IO[bytes]) -> AsyncGenerator[Placement, None]:
    if plan.placement == "in-process":
        yield InProcess(SOURCE, teardown_s=2)
        return
    if plan.placement == "subprocess":
        yield Spawned(SOURCE, command=None, log_file=log_file, pace=Pace(ready_s=60, teardown_s=2))
        return
    async with ProcessPool(SOURCE, log_file=log_file, recycle_after=10**6, teardown_s=2) as pool:
        yield pool


def _attempter(placement: Placement, gateway: PacedGateway, dispatch: Dispatch) -> Attempter:
    return Attempter(
        placement=placement,
        agent=ChatAgent(system_prompt=None, max_turns=10),
        gateway=gateway,
        policy=PolicyCell(Policy(version=0, checkpoint=None)),
        sampling=Sampling(top_p=1.0, max_tokens=8, stop=(), seed=0),
        limits=Limits(deadline_s=600, grading_reserve_s=60, infrastructure_retries=2),
        dispatch=dispatch,
    )


async def _start_processes(plan: Plan, tasks: tuple[Task, ...], attempter: Attempter) -> None:
    """Take every slot at once, so that each gets its process."""
    async with create_task_group() as slots:
        for member in range(plan.concurrency):
            ticket = Ticket(group=0, member=member, task=tasks[0], members=plan.concurrency)
            slots.start_soon(partial(attempter.attempt, ticket, temperature=1.0))


async def _run(
    plan: Plan, tasks: tuple[Task, ...], attempter: Attempter, directory: Path, *, above_mb: float
) -> tuple[Cost, int]:
    """The stages from source to collect, in the middle of a run; and how many rollouts were graded."""
    groups = max(1, plan.concurrency // GROUP)
    # Enough for every slot to be taken at any time, whatever waits for its group or its batch.
    permits = Permits(groups_per_step=groups, staleness=3)
    board = Scoreboard(total_steps=1, metrics=MetricsFile(directory / "metrics.jsonl"))
    desk = Desk(
        grading=GradingRule(treatments={}, scale_by=1.0, drop_no_spread=False),
        cutter=BatchCutter(next_step=1, groups_per_step=groups, replacements=0, staleness=NEVER),
        permits=permits,
        trajectories=Trajectories(Database(directory / "store.db")),
        dispatch=Dispatch(concurrency=plan.concurrency),
        last_step=NEVER,
    )
    tickets, tickets_out = create_memory_object_stream[Ticket](0)
    rollouts, rollouts_out = create_memory_object_stream[Rollout](0)
    batches, batches_out = create_memory_object_stream[Batch](math.inf)
    async with tickets, tickets_out, rollouts, batches_out, create_task_group() as stages:
        stages.start_soon(partial(
            source, tickets, order=TaskOrder(tasks, seed=0, shuffle=False), group_size=GROUP,
            permits=permits, ended=(), waiting=(), begun={},
        ))  # fmt: skip
        stages.start_soon(partial(
            rollout, tickets_out, rollouts, attempter=attempter, temperature=1.0,
            workers=permits.total * GROUP, board=board,
        ))  # fmt: skip
        stages.start_soon(partial(
            collect, rollouts_out, batches, groups=GroupTable(), desk=desk, waiting=()
        ))  # fmt: skip
        await _graded(batches_out, permits, at_least=plan.warm_up)
        async with costing(above_mb=above_mb) as cost:
            done = await _graded(batches_out, permits, at_least=plan.rollouts)
        stages.cancel_scope.cancel()
    return cost, done


async def _graded(batches: MemoryObjectReceiveStream[Batch], permits: Permits, *, at_least: int) -> int:
    """Take batches as a trainer would; how many rollouts they had."""
    done = 0
    while done < at_least:
        batch = await batches.receive()
        permits.give_back(batch.holders, reason="trained")
        done += len(batch.rewards)
    return done


if __name__ == "__main__":
    with quiet_heap():
        anyio.run(_main, Plan(**json.loads(sys.argv[1])), backend_options={"use_uvloop": True})
