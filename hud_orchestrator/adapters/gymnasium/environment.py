"""The environment: plays one seeded episode, a turn of the agent for each of its actions."""

from __future__ import annotations

import re
from typing import Any

from hud_orchestrator.adapters.adapted import library
from hud_orchestrator.adapters.moves import Tally, last_named
from hud_orchestrator.environments.template import Environment

EXTRA = "gymnasium"
_COLOUR = re.compile(r"(?:\x1b\[(?!0m)[0-9;]*m)+")
_PLAIN = re.compile(r"(?:\x1b\[0m)+")

env = Environment("gymnasium")


@env.template()
async def play(
    game: str,
    seed: int,
    actions: list[str] | None = None,
    prompt: str = "",
    max_moves: int = 50,
    illegal_moves: int = 3,
    illegal_penalty: float = 0.0,
    options: dict[str, Any] | None = None,
) -> Any:
    """One episode, see :func:`hud_orchestrator.adapters.gymnasium.game`."""
    table = Table(game, seed, actions=actions or [], options=options or {})
    try:
        tally, total, over = Tally(illegal_penalty=illegal_penalty), 0.0, False
        choices = f"Say one of: {', '.join(table.actions)}."
        news = f"{prompt or choices}\n{table.seen()}"
        while not over and tally.turns < max_moves and tally.illegal <= illegal_moves:
            said = yield news
            if said is None:
                break
            tally.turns += 1
            action = last_named(said, table.actions)
            if action is None:
                tally.illegal += 1
                news = f"That is no action. {choices}"
                continue
            reward, over = table.step(action)
            total += reward
            news = table.seen()
        yield tally.grade(total, outcome=total, finished=over)
    finally:
        table.close()


class Table:
    """An episode in progress."""

    def __init__(self, name: str, seed: int, *, actions: list[str], options: dict[str, Any]) -> None:
        gymnasium = library("gymnasium", extra=EXTRA)
        try:
            # Whether there is a picture in text is known when the environment is there, and chosen before.
            plain = gymnasium.make(name, **options)
            self._drawn = "ansi" in plain.metadata.get("render_modes", ())
            plain.close()
            self._game = gymnasium.make(name, render_mode="ansi" if self._drawn else None, **options)
        except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
            raise ValueError(f"gymnasium does not make {name!r}: {error}") from error
        count = getattr(self._game.action_space, "n", None)
        if count is None or (actions and len(actions) != count):
            raise ValueError(
                f"{name} has the actions {self._game.action_space}; a game in text needs a finite number of "
                f"them, and a name for each or for none, not {len(actions)}"
            )
        first = int(getattr(self._game.action_space, "start", 0))
        names = actions or [str(first + number) for number in range(int(count))]
        self._numbers = {action: first + number for number, action in enumerate(names)}
        self.actions = names
        self._observation, _ = self._game.reset(seed=seed)

    def step(self, action: str) -> tuple[float, bool]:
        """Do it; the reward, and whether the episode is over."""
        self._observation, reward, terminated, truncated, _ = self._game.step(self._numbers[action])
        return float(reward), bool(terminated or truncated)

    def seen(self) -> str:
        """What there is to see: where the picture has a colour, brackets."""
        if not self._drawn:
            return str(self._observation)
        return _PLAIN.sub("]", _COLOUR.sub("[", str(self._game.render()))).strip()

    def close(self) -> None:
        """Let the environment clean up."""
        self._game.close()
