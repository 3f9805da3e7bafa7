"""How a rollout that ran elsewhere has ended, by its trace.

HUD's states are coarser than our outcomes::

    status      stop_reason     evaluation   outcome
    completed   done, none      yes          finished
    completed   length          yes          length
    completed   max_steps       yes          max_turns
    error       timeout         yes          cut_short
    error       timeout         no           ungraded
    error       any other       yes          agent_error
    error       any other       no           environment_lost: nothing more is known
    cancelled                                environment_lost: we did not ask for it
    any                         isError      grader_failed

A trace that we have written ourselves says the outcome beside that, in ``metadata``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hud_orchestrator.records import Outcome
from hud_orchestrator.wire_hosting import TraceState

OVER = frozenset({"completed", "error", "cancelled"})
"""States after which nothing changes."""

OUTCOME = "outcome"
"""The key of ``metadata``."""

_CLEAN = {"length": Outcome.LENGTH, "max_steps": Outcome.MAX_TURNS}


def outcome_of(state: TraceState) -> Outcome:
    """How the rollout of a trace that is over has ended."""
    grade = state.evaluation_result
    if state.status == "cancelled":
        return Outcome.LOST
    if (known := _told(state.metadata)) is not None:
        return known
    if grade is not None and grade.get("isError"):
        return Outcome.GRADER_FAILED
    if state.status == "completed":
        graded = _finite(state.reward) is not None
        return _CLEAN.get(state.stop_reason or "", Outcome.FINISHED) if graded else Outcome.GRADER_FAILED
    if state.stop_reason == "timeout":
        return Outcome.UNGRADED if grade is None else Outcome.CUT_SHORT
    return Outcome.LOST if grade is None else Outcome.AGENT_ERROR


def reward_of(state: TraceState) -> float | None:
    """The reward that the service trains the trace with; ``None`` when it was not graded.

    A rollout that failed reports a reward of 0 without an evaluation, which says nothing about the policy.
    """
    grade = state.evaluation_result
    graded = state.status == "completed" if grade is None else not grade.get("isError")
    return _finite(state.reward) if graded and state.status != "cancelled" else None


def _told(metadata: Mapping[str, Any] | None) -> Outcome | None:
    try:
        return Outcome(str((metadata or {}).get(OUTCOME)))
    except ValueError:
        return None


def _finite(reward: float | None) -> float | None:
    return reward if reward is not None and math.isfinite(reward) else None
