"""Train agents by on-policy reinforcement learning behind one gateway slug."""

from __future__ import annotations

from hud_orchestrator.environments.template import Environment, EvaluationResult, SubScore, TaskRow

__all__ = ["Environment", "EvaluationResult", "SubScore", "TaskRow", "__version__"]

__version__ = "0.1.0"
