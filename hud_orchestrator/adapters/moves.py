"""What a player says, as a move, and the count of moves that were none. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hud_orchestrator.environments.template import EvaluationResult, SubScore


@dataclass(slots=True)
class Tally:
    """A game so far."""

    illegal_penalty: float = 0.0
    turns: int = 0
    illegal: int = 0

    def grade(
        self, reward: float, *, outcome: float, finished: bool, reason: str | None = None
    ) -> EvaluationResult:
        """The grade: *reward* as the game has it, less the penalties, and *outcome* from 0 to 1."""
        legal = 1.0 - self.illegal / self.turns if self.turns else 1.0
        known = {"turns": self.turns, "illegal_moves": self.illegal, "finished": finished, "reason": reason}
        return EvaluationResult(
            reward=reward - self.illegal_penalty * self.illegal,
            info=known,
            subscores=[
                SubScore(name="outcome", value=min(max(outcome, 0.0), 1.0)),
                SubScore(name="legal", value=legal, weight=0),
            ],
        )


def last_match(said: str, pattern: str) -> str | None:
    """The group of the last match of *pattern*, or the match where it has none."""
    found = list(re.finditer(pattern, said, re.DOTALL))
    if not found:
        return None
    return found[-1].group(1 if found[-1].re.groups else 0)


def last_named(said: str, names: Sequence[str]) -> str | None:
    """The one of *names* that *said* names last, as a word of its own, in any case."""
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    found = re.findall(rf"(?<!\w)(?:{longest_first})(?!\w)", said, re.IGNORECASE)
    if not found:
        return None
    return next(name for name in names if name.casefold() == found[-1].casefold())
