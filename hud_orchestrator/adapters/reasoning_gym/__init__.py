"""Reasoning Gym: a hundred procedural task families, each with a verifier that gives partial scores.

from hud_orchestrator.adapters.reasoning_gym import family

env, train, heldout = family("chain_sum", size=500, seed=1, max_terms=3)
"""

from __future__ import annotations

from hud_orchestrator.adapters.reasoning_gym.families import family

__all__ = ["family"]
