"""Gymnasium: environments with a few actions, played in text.

from hud_orchestrator.adapters.gymnasium import game

env, train, heldout = game("FrozenLake-v1", actions=["left", "down", "right", "up"], map_name="4x4")
"""

from __future__ import annotations

from hud_orchestrator.adapters.gymnasium import environment
from hud_orchestrator.adapters.gymnasium.games import game

__all__ = ["environment", "game"]
