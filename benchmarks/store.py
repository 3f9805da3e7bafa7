"""Rollouts written to the store by the group, with every commit on disk."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import anyio

from benchmarks.measure import Row, cpu_ms
from hud_orchestrator.records import Group, Outcome, Rollout, Sample, Task, Ticket
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories

SIZE = 16
TIMES = 300
TASK = Task(env="e", id="t", args={"a": 1}, slug="t-1")


def store() -> list[Row]:
    """Measure groups of short and of long rollouts."""
    return [
        Row(what=f"group of {SIZE} rollouts of {tokens} tokens stored", cpu_ms=anyio.run(_measured, tokens))
        for tokens in (8, 512)
    ]


async def _measured(tokens: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "store.db")
        trajectories, numbers = Trajectories(database), itertools.count()

        async def work() -> None:
            await trajectories.add(_group(next(numbers), tokens), ending=None)

        try:
            return await cpu_ms(work, times=TIMES, at_once=1)
        finally:
            database.close()


def _group(number: int, tokens: int) -> Group:
    sample = Sample(
        prompt_token_ids=tuple(range(32)),
        output_token_ids=(7,) * tokens,
        logprobs=(-0.693,) * tokens,
        version=0,
    )
    return Group(
        number=number,
        rollouts=tuple(
            Rollout(
                ticket=Ticket(group=number, member=member, task=TASK, members=SIZE),
                trace_id="0" * 32,
                outcome=Outcome.FINISHED,
                samples=(sample,),
                reward=float(member % 2),
                grade={"score": float(member % 2)},
            )
            for member in range(SIZE)
        ),
    )
