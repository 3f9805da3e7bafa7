"""The states of a step, and how one follows another. The store refuses every other change: schema.sql."""

from __future__ import annotations

from collections.abc import Mapping

from hud_orchestrator.records import StepState

NEXT: Mapping[StepState, frozenset[StepState]] = {
    StepState.PLANNED: frozenset({StepState.APPLIED, StepState.SKIPPED, StepState.ABANDONED}),
    StepState.APPLIED: frozenset({StepState.ROLLED_BACK}),
    StepState.SKIPPED: frozenset({StepState.ROLLED_BACK}),
    StepState.ABANDONED: frozenset(),
    StepState.ROLLED_BACK: frozenset(),
}
"""What each state may become."""


def unapplied(*, redo: bool, called: bool) -> StepState:
    """What a step becomes that was not applied.

    Args:
        redo: whether lost steps are done again, as the run file says.
        called: whether anything of it may have reached the service; if not, it is not lost.
    """
    return StepState.ABANDONED if redo or not called else StepState.SKIPPED
