"""Train agents by on-policy reinforcement learning behind one gateway slug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hud_orchestrator.environments.template import Environment, EvaluationResult, SubScore, TaskRow

if TYPE_CHECKING:
    from hud_orchestrator.rollouts import Rollouts
    from hud_orchestrator.training_client import TrainingClient
    from hud_orchestrator.wire import TrajectoryPayload, TrajectorySample

__all__ = [
    "Environment",
    "EvaluationResult",
    "Rollouts",
    "SubScore",
    "TaskRow",
    "TrainingClient",
    "TrajectoryPayload",
    "TrajectorySample",
    "__version__",
]

__version__ = "0.1.0"

# An environment's process imports this package for its template and needs no HTTP client.
_LATER = {
    "Rollouts": "hud_orchestrator.rollouts",
    "TrainingClient": "hud_orchestrator.training_client",
    "TrajectoryPayload": "hud_orchestrator.wire",
    "TrajectorySample": "hud_orchestrator.wire",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
