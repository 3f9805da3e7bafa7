"""TextArena: games in text, alone or against an opponent that is a script.

from hud_orchestrator.adapters.textarena import game

env, train, heldout = game("TicTacToe-v0", size=200, opponent="random")
"""

from __future__ import annotations

from hud_orchestrator.adapters.textarena import environment
from hud_orchestrator.adapters.textarena.games import game

__all__ = ["environment", "game"]
