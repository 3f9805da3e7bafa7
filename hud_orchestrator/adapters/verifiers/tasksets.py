"""A taskset of ``verifiers``, as tasks."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hud_orchestrator.adapters.adapted import Adapted
from hud_orchestrator.adapters.verifiers.environment import env, episode
from hud_orchestrator.adapters.verifiers.world import World
from hud_orchestrator.environments.template import TaskRow


def taskset(
    name: str,
    *,
    size: int = 500,
    heldout: int = 96,
    seed: int | None = None,
    environment: str = "",
    config: dict[str, Any] | None = None,
) -> Adapted:
    """The environment and the tasks of a taskset that is installed.

    Args:
        name: the taskset, as ``verifiers`` loads it.
        size: tasks to train on, at most; a taskset may have fewer, and an infinite one has more.
        heldout: tasks kept for evaluation, which come first.
        seed: shuffles what is taken of the taskset; left out, its own order.
        environment: another environment for the taskset than its own.
        config: of the taskset, and under ``task`` of its tasks.

    Raises:
        ValueError: there is no such taskset, it has too few tasks, or it needs more than a conversation:
            tools, a sandbox, several agents.
        ModuleNotFoundError: ``verifiers`` is not installed.
    """
    if size < 1 or heldout < 0:
        raise ValueError(f"size is {size} and heldout is {heldout}; expected at least 1 and 0")
    world = World(name, environment, config or {})
    most = None if _may_end(world, seed) else size + heldout
    tasks = list(enumerate(itertools.islice(world.tasks(), most)))
    if len(tasks) <= heldout:
        raise ValueError(
            f"{name} has {len(tasks)} tasks, and {heldout} of them would be held out: none is left"
        )
    if seed is not None:
        random.Random(seed).shuffle(tasks)  # noqa: S311  (an order, not a secret)
    common: dict[str, Any] = {"taskset": name}
    common |= {"environment": environment} if environment else {}
    common |= {"config": config} if config else {}
    rows = []
    for place, task in tasks[: size + heldout]:
        world.check(task)
        data = task.data.model_dump(mode="json", exclude_defaults=True)
        slug = f"{name}-{place if task.data.idx is None else task.data.idx}"
        columns = {"taskset": name} | ({"name": task.data.name} if task.data.name else {})
        rows.append(
            TaskRow(env=env.name, id=episode.id, args={**common, "task": data}, slug=slug, columns=columns)
        )
    return Adapted(env, rows[heldout:], rows[:heldout])


def _may_end(world: World, seed: int | None) -> bool:
    """Whether all of it is read: to be shuffled, where it ends at all."""
    return seed is not None and not world.infinite
