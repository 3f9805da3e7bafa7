"""The environment: plays one seeded game, a turn of the agent for each of its moves."""

from __future__ import annotations

import copy
import importlib
import random
import re
from collections.abc import Callable
from typing import Any

from hud_orchestrator.adapters.adapted import library
from hud_orchestrator.adapters.chance import Chance
from hud_orchestrator.adapters.moves import Tally, last_match
from hud_orchestrator.environments.template import Environment

EXTRA = "textarena"
RAW = "-raw"
"""The variant of a game without wrappers: it says what is new, and the conversation has the rest."""
GAME = -1
"""The sender of what the game itself says."""

Opponent = Callable[[str, random.Random], str]

env = Environment("textarena")


@env.template()
async def play(
    game: str,
    seed: int,
    opponent: str | None = None,
    seat: int = 0,
    prompt: str | None = None,
    extract: str = "",
    action: str = "{move}",
    illegal_moves: int = 1,
    illegal_penalty: float = 0.0,
    options: dict[str, Any] | None = None,
) -> Any:
    """One game, see :func:`hud_orchestrator.adapters.textarena.game`."""
    tally = Tally(illegal_penalty=illegal_penalty)
    table = Table(
        game, seed, tally, opponent=opponent, seat=seat, forgiven=illegal_moves, options=options or {}
    )
    news = table.news(introduction=prompt)
    while not table.over:
        said = yield news
        if said is None:
            break
        move = last_match(said, extract) if extract else said
        # A reply without a move is for the game to object to.
        table.step(said if move is None else action.format(move=move))
        news = table.news()
    yield table.grade()


class Table:
    """A game in progress, with a script in the other chair."""

    def __init__(
        self,
        name: str,
        seed: int,
        tally: Tally,
        *,
        opponent: str | None,
        seat: int,
        forgiven: int,
        options: dict[str, Any],
    ) -> None:
        self._seat = seat
        self._random = random.Random(f"opponent {seed}")  # noqa: S311  (a game, not a secret)
        self._opponent = _opponent(opponent) if opponent else None
        self._chance = Chance(seed)
        self._tally = tally
        self._heard = ""
        self.over = False
        arena = library("textarena", extra=EXTRA)
        with self._chance.lent():
            self._game = arena.make(name + RAW if name + RAW in known_games() else name, **options)
            self._game.reset(num_players=1 if opponent is None else 2, seed=seed)
        self._game.state.error_allowance = forgiven
        self._let_others_play()

    def step(self, action: str) -> None:
        """Make the agent's move, and the opponent's after it."""
        state = self._game.state
        errors = state.error_count
        self._tally.turns += 1
        with self._chance.lent():
            self.over, _ = self._game.step(action)
        lost_by_it = self.over and state.game_info[self._seat].get("invalid_move", False)
        self._tally.illegal += bool(state.error_count > errors or lost_by_it)
        self._let_others_play()

    def news(self, *, introduction: str | None = None) -> str:
        """What the agent has not read yet; *introduction* stands for what the game begins with."""
        messages = list(self._game.state.observations[self._seat])
        self._game.state.observations[self._seat].clear()
        if introduction is not None:
            messages[:1] = [(GAME, introduction, None)]
        return "\n".join(text for sender, text, _ in messages if sender != self._seat)

    def grade(self) -> Any:
        """The reward that the game gives the agent; 0 for one that was not finished."""
        rewards, infos = self._game.close() if self.over else (None, {})
        reward = float((rewards or {}).get(self._seat, 0.0))
        alone = self._opponent is None
        return self._tally.grade(
            reward,
            outcome=reward if alone else (reward + 1) / 2,
            finished=self.over,
            reason=infos.get(self._seat, {}).get("reason"),
        )

    def _let_others_play(self) -> None:
        while not self.over and self._opponent and self._game.state.current_player_id != self._seat:
            _, messages = self._game.get_observation()
            self._heard = "\n".join(text for sender, text, _ in messages if sender == GAME) or self._heard
            action = self._legal(self._opponent(self._heard, self._random))
            with self._chance.lent():
                self.over, _ = self._game.step(action)

    def _legal(self, action: str) -> str:
        """*action*, or another one that the game showed, where it is not legal: a script must not lose so."""
        others = re.findall(r"\[[^\[\]]+\]", self._heard)
        self._random.shuffle(others)
        return next((move for move in (action, *others) if self._is_legal(move)), action)

    def _is_legal(self, action: str) -> bool:
        trial = copy.deepcopy(self._game)
        other, errors = 1 - self._seat, trial.state.error_count
        with self._chance_of_a_trial().lent():
            trial.step(action)
        return trial.state.error_count <= errors and not trial.state.game_info[other].get("invalid_move")

    def _chance_of_a_trial(self) -> Chance:
        return copy.deepcopy(self._chance)


def known_games() -> Any:
    """The ids of all games.

    Raises:
        ModuleNotFoundError: TextArena is not installed.
    """
    return library("textarena.envs.registration", extra=EXTRA).ENV_REGISTRY


def _opponent(named: str) -> Opponent:
    if named == "random":
        return _random
    module, _, function = named.partition(":")
    found = getattr(importlib.import_module(module), function, None) if function else None
    if not callable(found):
        raise ValueError(f"opponent {named!r} is neither random nor module:function")  # noqa: TRY004
    return found  # type: ignore[no-any-return]


def _random(heard: str, chance: random.Random) -> str:
    """Any move that the game shows in brackets."""
    moves = re.findall(r"\[[^\[\]]+\]", heard)
    return chance.choice(moves) if moves else ""
