"""One measurement, as it is handed to the process that makes it, and what that process prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.rollouts.cost import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    port: int
    """Of the paced gateway."""
    placement: str
    """``in-process``, ``local`` (a warm process) or ``subprocess`` (one per rollout)."""
    tools: bool
    """Eight turns with a tool, or one turn."""
    concurrency: int
    rollouts: int

    @property
    def warm_up(self) -> int:
        """Rollouts that are not measured."""
        return 1 if self.placement == "subprocess" else 3 * self.concurrency


def figures(plan: Plan, cost: Cost, done: int) -> dict[str, Any]:
    """What is printed."""
    return {
        "rollouts": done,
        "wall_s": cost.wall_s,
        "per_s": done / cost.wall_s,
        "cpu_ms": cost.cpu_s / done * 1000,
        "own_cpu_ms": cost.own_cpu_s / done * 1000,
        "kb_in_flight": cost.peak_mb * 1024 / plan.concurrency,
        "lag_p99_ms": cost.lag_p99_ms,
    }
