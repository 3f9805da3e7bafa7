"""The environment: lets an environment of ``verifiers`` converse with our agent, and its rubric grade."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from hud_orchestrator.adapters.verifiers.seat import Seat
from hud_orchestrator.adapters.verifiers.world import World
from hud_orchestrator.environments.template import Environment, EvaluationResult, SubScore

env = Environment("verifiers")


@env.template()
async def episode(
    taskset: str, task: dict[str, Any], environment: str = "", config: dict[str, Any] | None = None
) -> Any:
    """One task of a taskset; *task* is its data."""
    world = _world(taskset, environment, json.dumps(config or {}, sort_keys=True))
    seat = Seat()
    # Its environment awaits our agent's turns while we await its prompts, so it is a task of its own. It ends
    # with this generator.
    playing = asyncio.create_task(world.play(task, seat))
    try:
        while (messages := await seat.asked(playing)) is not None:
            seat.say((yield messages))
        yield _grade(await playing)
    finally:
        playing.cancel()
        await asyncio.wait({playing})
        if not playing.cancelled():
            playing.exception()  # it was raised here already, or nobody asks for it any more


def _grade(traces: list[Any]) -> EvaluationResult:
    """The reward of the agent's conversation, or the mean of several."""
    rewards = [trace.reward for trace in traces]
    last = traces[-1]
    scores = [
        SubScore(name=name, value=min(max(reward.score, 0.0), 1.0), weight=max(reward.weight, 0.0))
        for name, reward in last.rewards.items()
        if reward is not None
    ]
    metrics = {name: value for name, value in last.metrics.items() if value is not None}
    return EvaluationResult(
        reward=sum(rewards) / len(rewards),
        info={"metrics": metrics, "stopped": last.stop_condition, "conversations": len(traces)},
        subscores=scores,
    )


@functools.lru_cache(maxsize=8)
def _world(taskset: str, environment: str, config: str) -> World:
    return World(taskset, environment, json.loads(config))
