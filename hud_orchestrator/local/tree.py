"""A fork's checkpoints on disk: immutable nodes, and a head that is written last.

    model.json                      what the fork is; never changes
    initial.safetensors             the weights before the first step
    checkpoints/<id>/meta.json      a node: who made it from what, and how it went
                     weights.safetensors, optimizer.safetensors
    head.json                       {"checkpoint_id", "serial"}

A node exists from the rename of its directory on. Serials count nodes in the order they were made,
and the head file holds the highest one of its time. A node above it is therefore one whose save was
cut between the rename and the head file: the step was whole, so it is **adopted** as head. Deleting
it would also be consistent, but would throw away work, and a node that a reader of the checkpoint
list may have seen would vanish.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from hud_orchestrator.config.local import LoraSection
from hud_orchestrator.local.atomic import new_directory, remove_leftovers, write_file
from hud_orchestrator.local.weights import Tensors, TrainState, fresh_state
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire import Checkpoint

log = get_logger()


class ModelRecord(BaseModel):
    """What a fork is. Written once."""

    model_config = ConfigDict(frozen=True)

    id: str
    slug: str
    base: str
    mode: Literal["full", "lora"]
    lora: LoraSection | None
    parent: str
    """Id of the model it was forked from."""
    parent_checkpoint: str | None
    """The parent's checkpoint it began from; ``None``: the parent's initial weights."""
    created_at: str


class Node(BaseModel):
    """A checkpoint's ``meta.json``."""

    model_config = ConfigDict(frozen=True)

    serial: int
    checkpoint: Checkpoint
    """As the catalog answers it; ``is_active`` is filled in when it does."""
    step: int
    idempotency_key: str | None = None
    request_digest: str | None = None
    """Of the ``optim-step`` that made it, so that a repeated one is recognised after a restart."""


class _Head(BaseModel):
    checkpoint_id: str | None = None
    serial: int = Field(default=0, ge=0)


class Tree:
    """The nodes and the head of one fork."""

    def __init__(self, directory: Path) -> None:
        """Read the tree that is in *directory*; finish or discard what a crash left."""
        self.directory = directory
        self.record = ModelRecord.model_validate_json((directory / "model.json").read_bytes())
        self._nodes = directory / "checkpoints"
        for name in remove_leftovers(directory) + remove_leftovers(self._nodes):
            log.warning("checkpoint.discarded", model=self.record.slug, leftover=name)
        found = [Node.model_validate_json(path.read_bytes()) for path in self._nodes.glob("*/meta.json")]
        self.nodes = {node.checkpoint.id: node for node in sorted(found, key=lambda node: node.serial)}
        self._head = self._read_head()
        self._adopt_unacknowledged()

    @property
    def head(self) -> Node | None:
        """The active checkpoint; ``None`` before the first step."""
        return self.nodes[self._head.checkpoint_id] if self._head.checkpoint_id else None

    def checkpoints(self) -> list[Checkpoint]:
        """Every node, oldest first, the head marked."""
        active = self._head.checkpoint_id
        return [
            node.checkpoint.model_copy(update={"is_active": node.checkpoint.id == active})
            for node in self.nodes.values()
        ]

    def next_id(self) -> tuple[int, str]:
        """Serial and id of the node that will be made next."""
        serial = max([self._head.serial, *(node.serial for node in self.nodes.values())]) + 1
        return serial, str(uuid.uuid5(uuid.UUID(self.record.id), str(serial)))

    def paths(self, checkpoint_id: str) -> tuple[Path, Path]:
        """Where a node's weights and its optimizer's state are."""
        node = self._nodes / checkpoint_id
        return node / "weights.safetensors", node / "optimizer.safetensors"

    def save(self, node: Node, state: TrainState) -> None:
        """Write *node* and make it the head.

        Raises:
            OSError: nothing was saved, for example because the disk is full; the head is as before.
        """
        with new_directory(self._nodes / node.checkpoint.id) as new:
            save_tensors(new / "weights.safetensors", state.tensors)
            save_tensors(new / "optimizer.safetensors", _pack(state))
            (new / "meta.json").write_text(node.model_dump_json())
        head = _Head(checkpoint_id=node.checkpoint.id, serial=node.serial)
        try:
            self._write_head(head)
        except OSError:
            # Left behind, it would be adopted at the next start although its step was refused.
            shutil.rmtree(self._nodes / node.checkpoint.id)
            raise
        # A new dict: the event loop may be reading the old one while this thread saves.
        self.nodes = {**self.nodes, node.checkpoint.id: node}
        self._head = head

    def set_head(self, checkpoint_id: str) -> None:
        """Point the head at a node, durably.

        Raises:
            OSError: the head is as before.
        """
        head = _Head(checkpoint_id=checkpoint_id, serial=max(node.serial for node in self.nodes.values()))
        self._write_head(head)
        self._head = head

    def load(self, node: Node | None) -> TrainState:
        """The state at *node*, or before the first step, on the CPU."""
        if node is None:
            return fresh_state(load_file(self.directory / "initial.safetensors"))
        weights, optimizer = self.paths(node.checkpoint.id)
        return _unpack(load_file(weights), load_file(optimizer), node.step)

    def _write_head(self, head: _Head) -> None:
        write_file(self.directory / "head.json", head.model_dump_json().encode())

    def _read_head(self) -> _Head:
        path = self.directory / "head.json"
        return _Head.model_validate_json(path.read_bytes()) if path.exists() else _Head()

    def _adopt_unacknowledged(self) -> None:
        """Make a node whose save was cut before the head file the head; there is at most one."""
        for node in self.nodes.values():
            if node.serial > self._head.serial:
                log.warning("head.set", model=self.record.slug, checkpoint=node.checkpoint.id, adopted=True)
                self.set_head(node.checkpoint.id)


def create_tree(directory: Path, record: ModelRecord, initial: Tensors) -> Tree:
    """Write a new fork.

    Raises:
        OSError: nothing was written.
    """
    with new_directory(directory) as new:
        (new / "checkpoints").mkdir()
        (new / "model.json").write_text(record.model_dump_json())
        save_tensors(new / "initial.safetensors", initial)
    return Tree(directory)


def save_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors to *path*; not durable until it is fsynced.

    Raises:
        OSError: the disk is full, for example. safetensors reports it as an error of its own.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path.name}: {error}") from error


def _pack(state: TrainState) -> dict[str, Tensor]:
    first = {f"first.{name}": tensor for name, tensor in state.first_moments.items()}
    return first | {f"second.{name}": tensor for name, tensor in state.second_moments.items()}


def _unpack(tensors: Tensors, moments: Tensors, step: int) -> TrainState:
    return TrainState(
        tensors=tensors,
        first_moments={
            name.removeprefix("first."): t for name, t in moments.items() if name.startswith("first.")
        },
        second_moments={
            name.removeprefix("second."): t for name, t in moments.items() if name.startswith("second.")
        },
        step=step,
    )
