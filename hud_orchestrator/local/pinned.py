"""Checkpoints other than the head, loaded when a completion asks for one, and kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from safetensors.torch import load_file

from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tree import Tree
from hud_orchestrator.local.weights import Weights
from hud_orchestrator.records import INITIAL

KEPT = 4
"""Checkpoints that are kept in memory; a comparison seldom has more."""


class Pinned:
    """The checkpoints in use lately. Used by the event loop only."""

    def __init__(self) -> None:
        self._loads: OrderedDict[tuple[str, str], asyncio.Task[Weights]] = OrderedDict()

    async def get(self, tree: Tree, checkpoint_id: str, engine: Engine) -> Weights:
        """The weights of a checkpoint: its id, or ``initial:<model id>`` for those before the first step.

        Raises:
            Refused: 404, the model has no such checkpoint, or its weights are no longer there.
        """
        key = (tree.record.id, checkpoint_id)
        task = self._loads.get(key)
        if task is None:
            loading = asyncio.to_thread(_load, tree, checkpoint_id, engine)
            task = self._loads[key] = asyncio.create_task(loading)
        self._loads.move_to_end(key)
        while len(self._loads) > KEPT:
            self._loads.popitem(last=False)
        try:
            # Several requests wait for one load; one that is cancelled must not take it along.
            return await asyncio.shield(task)
        except Exception:
            if self._loads.get(key) is task:
                del self._loads[key]
            raise


def _load(tree: Tree, checkpoint_id: str, engine: Engine) -> Weights:
    path = tree.directory / "initial.safetensors"
    if checkpoint_id != f"{INITIAL}{tree.record.id}":
        try:
            path = tree.paths(tree.node(checkpoint_id).checkpoint.id)[0]
        except Refused as refusal:
            raise Refused(404, refusal.detail) from None
    try:
        tensors = load_file(path, device=str(engine.model.device))
    except FileNotFoundError:
        raise Refused(404, f"checkpoint {checkpoint_id} of {tree.record.slug} was just pruned") from None
    return Weights(checkpoint_id, tensors)
