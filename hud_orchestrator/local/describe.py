"""What the checkpoint tree will tell about a step."""

from __future__ import annotations

from datetime import UTC, datetime

from hud_orchestrator.local.adamw import Stepped
from hud_orchestrator.local.pending import Pending
from hud_orchestrator.local.tree import Tree
from hud_orchestrator.local.tree_records import Node
from hud_orchestrator.wire import Checkpoint, OptimStepRequest


def describe(
    tree: Tree,
    pending: Pending,
    stepped: Stepped,
    request: OptimStepRequest,
    *,
    key: str | None,
    digest: str,
) -> Node:
    """The node that a step on *pending* makes, on top of the tree's head.

    ``mean_reward`` and the counts are over every call since the last step. ``metrics`` are those of
    the latest call, a client's own among them, then the spread of all rewards as they were sent, and
    the 2-norms of the gradient before clipping and of the update.
    """
    serial, checkpoint_id = tree.next_id()
    head, step, facts = tree.head, stepped.state.step, pending.facts()
    checkpoint = Checkpoint(
        id=checkpoint_id,
        name=f"step-{step:06d}",
        checkpoint_name=str(tree.paths(checkpoint_id)[0]),
        prev_model_checkpoint_id=head.checkpoint.id if head else None,
        created_at=datetime.now(UTC).isoformat(),
        num_traces=len(pending.rewards),
        num_datums=pending.num_datums,
        num_tokens=pending.num_tokens,
        mean_reward=facts["reward_mean"],
        learning_rate=request.learning_rate,
        loss_fn=", ".join(pending.losses),
        metrics={**facts, "grad_norm": stepped.grad_norm, "update_norm": stepped.update_norm},
    )
    return Node(serial=serial, step=step, checkpoint=checkpoint, idempotency_key=key, request_digest=digest)
