"""Which checkpoints keep their tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hud_orchestrator.config.local import KeepSection
from hud_orchestrator.local.tree_records import Node


def wanted(
    nodes: Sequence[Node],
    *,
    head: str | None,
    whole: Collection[str],
    keep: KeepSection,
    asked: Collection[str] = (),
) -> frozenset[str]:
    """Ids of the checkpoints that may not be pruned.

    Args:
        nodes: every node of a tree, oldest first.
        head: id of the active one.
        whole: ids of those that still have tensors; the best is the best of these.
        keep: what the settings want kept.
        asked: ids of those that the client wants kept.
    """
    parents = {node.checkpoint.prev_model_checkpoint_id for node in nodes}
    chosen = {node.checkpoint.id for node in nodes if node.checkpoint.id not in parents}
    chosen |= {node.checkpoint.id for node in nodes[-keep.last :]}
    chosen |= {node.checkpoint.id for node in nodes if node.checkpoint.id in asked}
    if head is not None:
        chosen.add(head)
    if keep.every is not None:
        chosen |= {node.checkpoint.id for node in nodes if node.step % keep.every == 0}
    if keep.best:
        scores = [
            (node.checkpoint.mean_reward, node.serial, node.checkpoint.id)
            for node in nodes
            if node.checkpoint.id in whole and node.checkpoint.mean_reward is not None
        ]
        if scores:
            chosen.add(max(scores)[2])
    return frozenset(chosen)
