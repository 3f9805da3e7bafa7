"""Play 2048 with a tool: every turn of the model is one call of ``move``, answered with the board.

A board is shown with one character for each cell, so that a game fits into a small context: ``.`` is
empty, and ``n`` is the tile 2 to the power of n. After two moves on a board of three by three::

    2..
    ...
    1.1

The grade looks at what was done so far, so a game that is cut short is graded like any other.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any, Literal

from board import DIRECTIONS, Board

from hud_orchestrator import Environment, EvaluationResult, SubScore, TaskRow

GLYPHS = ".123456789ABCDEFGH"
"""A cell by the power of two that is in it, up to the largest tile there can be on four by four."""

DIRECTION = {word: word for word in DIRECTIONS}
DIRECTION |= {word[0]: word for word in DIRECTIONS}
DIRECTION |= {"8": "up", "2": "down", "4": "left", "6": "right"}
"""What a direction may be called: a word, its first letter, or its key on a number pad."""

env = Environment("game2048")


@env.tool()
async def move(direction: Literal["up", "down", "left", "right"] | None = None) -> str:
    """Slide all tiles of a 2048 board in one direction; two equal tiles that meet merge into their sum.

    Every legal move adds a new tile, and is answered with the board: a line for each row, a character for
    each cell, "." where it is empty and n for the tile 2 to the power of n. A move that changes nothing is
    illegal. The first letter of a direction will do, or its key on a number pad: 8, 2, 4 or 6.
    """
    game: Board = env.state.game
    # A call that says nothing is a move like any other wrong one, and is counted like it.
    known = DIRECTION.get((direction or "").strip().lower())
    if known is not None and game.move(known):
        env.state.moves += 1
        return "game over" if game.over else drawn(game)
    env.state.illegal += 1
    return "game over" if game.over else "illegal"


@env.template()
async def game2048(seed: int, size: int = 4, goal: int = 2048) -> AsyncGenerator[Any, Any]:
    """Play for the highest tile; reaching *goal* is worth 1, and the way there is worth its part."""
    if goal < 4:
        raise ValueError(f"the goal is a tile that takes merges, 4 or more, not {goal}")
    env.state.game = game = Board(seed=seed, size=size)
    env.state.moves = env.state.illegal = 0
    yield f"2048\n{drawn(game)}"
    yield graded(game, goal=goal, moves=env.state.moves, illegal=env.state.illegal)


def drawn(game: Board) -> str:
    """The board as text."""
    return "\n".join(
        "".join(GLYPHS[tile.bit_length() - 1 if tile else 0] for tile in row) for row in game.rows
    )


def graded(game: Board, *, goal: int, moves: int, illegal: int) -> EvaluationResult:
    """Half for the highest tile, by its power of two; a quarter each for the score and for legal moves.

    Tile and score count from a board of 2s on, where nothing has been done, to the tile *goal*. The merges
    that make it from 2s sum up to ``goal * (log2(goal) - 1)``.
    """
    doublings = math.log2(goal) - 1
    parts = {
        "highest_tile": ((math.log2(game.highest) - 1) / doublings, 0.5, {"tile": game.highest}),
        "score": (game.score / (goal * doublings), 0.25, {"score": game.score}),
        "legal_moves": (moves / (moves + illegal or 1), 0.25, {"moves": moves, "illegal": illegal}),
    }
    scores = [
        SubScore(name=name, value=min(value, 1.0), weight=weight, info=info)
        for name, (value, weight, info) in parts.items()
    ]
    return EvaluationResult(
        reward=sum(score.value * score.weight for score in scores),
        info={"board": game.rows, "over": game.over},
        subscores=scores,
    )


def _games(seeds: range) -> list[TaskRow]:
    return [game2048(seed=seed, size=3, goal=16) for seed in seeds]


train = _games(range(1000))
heldout = _games(range(1000, 1048))
