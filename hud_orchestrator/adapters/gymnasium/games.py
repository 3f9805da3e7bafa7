"""Episodes with different seeds, as tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hud_orchestrator.adapters.adapted import Adapted
from hud_orchestrator.adapters.gymnasium.environment import Table, env, play
from hud_orchestrator.environments.template import TaskRow


def game(
    name: str,
    *,
    size: int = 200,
    heldout: int = 32,
    seed: int = 0,
    actions: Sequence[str] = (),
    prompt: str = "",
    max_moves: int = 50,
    illegal_moves: int = 3,
    illegal_penalty: float = 0.0,
    options: dict[str, Any] | None = None,
) -> Adapted:
    """The environment, and one task for each seed of a Gymnasium environment.

    What is seen is its ``ansi`` picture, where it has one, or the observation as text.

    Args:
        name: the id, as ``gymnasium.make`` takes it; ``my_module:MyGame-v0`` imports the module first.
        size: tasks to train on.
        heldout: tasks kept for evaluation; their seeds come first.
        seed: the first one.
        actions: what the agent says for each action, in their order; left out, their numbers. The last one
            that it says counts.
        prompt: said before the first observation; left out, which actions there are.
        max_moves: after which the episode ends.
        illegal_moves: replies without an action that are forgiven, all told.
        illegal_penalty: taken from the reward for every such reply.
        options: for ``gymnasium.make``, ``{"is_slippery": False}``.

    Raises:
        ValueError: there is no such environment, its actions are not so many, or a number cannot be used.
        ModuleNotFoundError: Gymnasium is not installed.
    """
    if size < 1 or heldout < 0 or max_moves < 1 or illegal_moves < 0:
        raise ValueError(
            f"size {size}, heldout {heldout}, max_moves {max_moves}, illegal_moves {illegal_moves}: "
            "expected at least 1, 0, 1 and 0"
        )
    args: dict[str, Any] = {"game": name, "max_moves": max_moves, "illegal_moves": illegal_moves}
    args |= {"illegal_penalty": illegal_penalty} if illegal_penalty else {}
    args |= {"actions": list(actions)} if actions else {}
    args |= {"prompt": prompt} if prompt else {}
    args |= {"options": options} if options else {}
    Table(name, seed, actions=list(actions), options=options or {}).close()  # says now what is wrong
    rows = [
        TaskRow(
            env=env.name,
            id=play.id,
            args={**args, "seed": number},
            slug=f"{name}-{number}",
            columns={"game": name},
        )
        for number in range(seed, seed + heldout + size)
    ]
    return Adapted(env, rows[heldout:], rows[:heldout])
