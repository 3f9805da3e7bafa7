"""Whom an evaluation compares: models, and checkpoints of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hud_orchestrator.cli.models.handles import SHOWN, pick_checkpoint, pick_model
from hud_orchestrator.clients.catalog import Catalog, head
from hud_orchestrator.errors import NotFound
from hud_orchestrator.wire import Checkpoint, Model

HEAD = "head"
"""What stands for a model's head among its checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One policy to measure."""

    slug: str
    checkpoint: str | None
    """Id of the checkpoint that is sampled; the head's when it is ``sampled`` as such."""
    pinned: bool
    """Whether the gateway is told the checkpoint: a head is sampled as whatever it is."""

    @property
    def label(self) -> str:
        """What a column of the table is called."""
        return f"{self.slug}@{self.checkpoint[:SHOWN]}" if self.pinned and self.checkpoint else self.slug


async def candidates(
    catalog: Catalog, *, models: Sequence[str], checkpoints: Sequence[str]
) -> list[Candidate]:
    """Every model at its head; or at each of *checkpoints*, of which every one must be some model's.

    Raises:
        NotFound: there is no such model, or no model has such a checkpoint.
    """
    known = await catalog.models()
    chosen = {model.id: model for model in (pick_model(known, name) for name in models)}
    trees = [(model, await catalog.checkpoints(model.id)) for model in chosen.values()]
    wanted = dict.fromkeys(checkpoints or [HEAD])
    found = [one for name in wanted for one in _at(trees, name)]
    return list(dict.fromkeys(found))


def _at(trees: Sequence[tuple[Model, list[Checkpoint]]], name: str) -> list[Candidate]:
    if name == HEAD:
        return [
            Candidate(slug=model.model_name, checkpoint=node.id if node else None, pinned=False)
            for model, node in ((model, head(nodes)) for model, nodes in trees)
        ]
    failures: list[NotFound] = []
    for model, nodes in trees:
        try:
            node = pick_checkpoint(nodes, name, slug=model.model_name)
        except NotFound as failure:
            failures.append(failure)
        else:
            return [Candidate(slug=model.model_name, checkpoint=node.id, pinned=True)]
    raise failures[0]
