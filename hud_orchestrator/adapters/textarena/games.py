"""Games with different seeds, as tasks."""

from __future__ import annotations

import inspect
from typing import Any

from hud_orchestrator.adapters.adapted import Adapted
from hud_orchestrator.adapters.textarena.environment import env, known_games, play
from hud_orchestrator.environments.template import TaskRow


def game(
    name: str,
    *,
    size: int = 200,
    heldout: int = 32,
    seed: int = 0,
    opponent: str | None = None,
    seat: int = 0,
    prompt: str | None = None,
    extract: str = "",
    action: str = "{move}",
    illegal_moves: int = 1,
    illegal_penalty: float = 0.0,
    options: dict[str, Any] | None = None,
) -> Adapted:
    """The environment, and one task for each seed of a game.

    Args:
        name: the game, as TextArena has it, ``GuessTheNumber-v0``.
        size: tasks to train on.
        heldout: tasks kept for evaluation; their seeds come first.
        seed: the first one.
        opponent: of a game for two: ``random``, which takes a move that the game shows in brackets, or
            ``module:function``, called with what the game says to it and a ``random.Random``.
        seat: the player that the agent is, 0 or 1.
        prompt: said in place of the game's own introduction.
        extract: a pattern that finds the move in what was said, see ``action``; empty, all of it is.
        action: what the game is told, ``"[{move}]"`` for moves in brackets.
        illegal_moves: in a row, that the game forgives.
        illegal_penalty: taken from the reward for every illegal move.
        options: of the game, ``{"max_number": 9}``.

    Raises:
        ValueError: there is no such game, or a number cannot be used.
        ModuleNotFoundError: TextArena is not installed.
    """
    if size < 1 or heldout < 0 or seat not in (0, 1):
        raise ValueError(
            f"size {size}, heldout {heldout}, seat {seat}: expected at least 1, at least 0, 0 or 1"
        )
    if name not in known_games():
        raise ValueError(f"TextArena has no game {name!r}; textarena.envs.registration.ENV_REGISTRY has all")
    args = {
        "opponent": opponent,
        "seat": seat,
        "prompt": prompt,
        "extract": extract,
        "action": action,
        "illegal_moves": illegal_moves,
        "illegal_penalty": illegal_penalty,
        "options": options,
    }
    rows = [_row(name, number, args) for number in range(seed, seed + heldout + size)]
    return Adapted(env, rows[heldout:], rows[:heldout])


def _row(name: str, seed: int, args: dict[str, Any]) -> TaskRow:
    # What is as the template has it need not travel with every row.
    usual = inspect.signature(play.function).parameters
    said = {key: value for key, value in args.items() if value != usual[key].default}
    return TaskRow(
        env=env.name,
        id=play.id,
        args={"game": name, "seed": seed, **said},
        slug=f"{name}-{seed}",
        columns={"game": name},
    )
