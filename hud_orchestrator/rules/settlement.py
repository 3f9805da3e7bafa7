"""What became of a step that was in hand when the daemon ended, read off the checkpoint tree.

A step whose ``optim_step`` may have reached the service has been applied exactly when the tree has a
node whose parent is the head from before, and which no step of ours explains. Otherwise nothing of it
remains but gradients that may have accumulated, and those go when the head is set again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.wire import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The step happened; this is its node."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplied:
    """The step did not happen."""

    evidence: str


def settle(
    tree: Sequence[Checkpoint],
    *,
    head_before: str | None,
    optim_step_called: bool,
    explained: Collection[str],
) -> Applied | NotApplied:
    """Decide whether an open step was applied.

    Args:
        tree: the model's checkpoints, oldest first.
        head_before: the head when the step was planned.
        optim_step_called: whether its ``optim_step`` may have left.
        explained: checkpoints that consumed steps made.

    Raises:
        HeadMoved: the tree has grown in a way that this step cannot explain.
    """
    unexplained = [
        node for node in tree if node.prev_model_checkpoint_id == head_before and node.id not in explained
    ]
    if not optim_step_called:
        if any(node.is_active for node in unexplained):
            raise HeadMoved(
                f"checkpoint {unexplained[-1].id} was made on top of {head_before} and not by this run: "
                "somebody else trains this model; give each run a slug of its own"
            )
        return NotApplied(evidence="no optim-step was sent")
    if not unexplained:
        return NotApplied(evidence=f"no checkpoint has the parent {head_before}")
    if len(unexplained) > 1:
        raise HeadMoved(
            f"{len(unexplained)} checkpoints have the parent {head_before}, and this run made at most one: "
            "somebody else trains this model; give each run a slug of its own"
        )
    return Applied(checkpoint=unexplained[0])
