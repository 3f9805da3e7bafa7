"""Environments of the ``verifiers`` library (its API ``verifiers.v1``) that are conversations in text.

from hud_orchestrator.adapters.verifiers import taskset

env, train, heldout = taskset("my-environment", size=500)
"""

from __future__ import annotations

from hud_orchestrator.adapters.verifiers import environment
from hud_orchestrator.adapters.verifiers.tasksets import taskset

__all__ = ["environment", "taskset"]
