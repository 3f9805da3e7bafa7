"""A fork's directory, read only: also while a service runs on it, and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hud_orchestrator.errors import NotFound
from hud_orchestrator.local.tree_records import Head, ModelRecord, Node, read_record
from hud_orchestrator.wire import Checkpoint, Model, Provider

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """One fork as it was when it was read. Its nodes never change, but they may be pruned later."""

    directory: Path
    record: ModelRecord
    nodes: Mapping[str, Node]
    """By id, oldest first."""
    head: str | None
    """Id of the active checkpoint; ``None`` before the first step."""

    def as_model(self) -> Model:
        """The fork as a catalog lists it."""
        slug = self.record.slug
        return Model(
            id=self.record.id,
            name=slug,
            model_name=slug,
            is_trainable=True,
            provider=Provider(name="local"),
        )

    def checkpoints(self) -> list[Checkpoint]:
        """Every node, oldest first, the head marked; pruned ones have no ``checkpoint_name``."""
        return [
            node.checkpoint.model_copy(
                update={
                    "is_active": checkpoint_id == self.head,
                    "checkpoint_name": str(self.weights(checkpoint_id))
                    if self._is_whole(checkpoint_id)
                    else None,
                }
            )
            for checkpoint_id, node in self.nodes.items()
        ]

    def weights(self, checkpoint_id: str | None) -> Path:
        """Where the weights at a checkpoint are, or those before the first step."""
        if checkpoint_id is None:
            return self.directory / "initial.safetensors"
        return self.directory / "checkpoints" / checkpoint_id / WEIGHTS

    def _is_whole(self, checkpoint_id: str) -> bool:
        weights = self.weights(checkpoint_id)
        return weights.exists() and weights.with_name(OPTIMIZER).exists()


def stored_models(state: Path) -> list[StoredModel]:
    """Every fork in a state directory, oldest first."""
    found = [read_model(path.parent) for path in (state / "models").glob("*/model.json")]
    return sorted(found, key=lambda model: (model.record.created_at, model.record.id))


def read_model(directory: Path) -> StoredModel:
    """The fork in one directory ``models/<id>``.

    Raises:
        NotFound: there is none.
        StateError: one of its files is damaged.
    """
    try:
        record = ModelRecord.model_validate_json((directory / "model.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotFound(f"{directory}: holds no model of the embedded service: {error}") from error
    found = [read_record(Node, path) for path in (directory / "checkpoints").glob("*/meta.json")]
    nodes = {node.checkpoint.id: node for node in sorted(found, key=lambda node: node.serial)}
    return StoredModel(directory=directory, record=record, nodes=nodes, head=_head(directory, nodes))


def _head(directory: Path, nodes: Mapping[str, Node]) -> str | None:
    """The head file's node, or one above it: the service would adopt that one."""
    path = directory / "head.json"
    head = read_record(Head, path) if path.exists() else Head()
    newest = max(nodes.values(), key=lambda node: node.serial, default=None)
    if newest is not None and newest.serial > head.serial:
        return newest.checkpoint.id
    return head.checkpoint_id
