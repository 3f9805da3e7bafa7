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

Pruning deletes the two tensor files of a node and leaves ``meta.json``, so parents never dangle. A
node that lacks either file is pruned: a kill between the two deletions leaves nothing half alive.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection
from pathlib import Path

from safetensors.torch import load_file

from hud_orchestrator.config.local import KeepSection
from hud_orchestrator.errors import StateError
from hud_orchestrator.local.atomic import discard, new_directory, remove_leftovers, write_file
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.retention import wanted
from hud_orchestrator.local.tensor_files import load_state, save_state, save_tensors
from hud_orchestrator.local.tree_records import Head, ModelRecord, Node, read_record
from hud_orchestrator.local.weights import Tensors, TrainState, fresh_state
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire import Checkpoint

log = get_logger()

NAMED_WHEN_PRUNED = 30
"""Kept checkpoints that a refusal names, the newest."""


class Tree:
    """The nodes and the head of one fork."""

    def __init__(self, directory: Path) -> None:
        """Read the tree that is in *directory*; finish or discard what a crash left."""
        self.directory = directory
        self.record = read_record(ModelRecord, directory / "model.json")
        self._nodes = directory / "checkpoints"
        for name in remove_leftovers(directory) + remove_leftovers(self._nodes):
            log.warning("checkpoint.discarded", model=self.record.slug, leftover=name)
        found = [read_record(Node, path) for path in self._nodes.glob("*/meta.json")]
        self.nodes = {node.checkpoint.id: node for node in sorted(found, key=lambda node: node.serial)}
        self._whole = frozenset(one for one in self.nodes if all(path.exists() for path in self.paths(one)))
        self._head = self._read_head()
        self._adopt_unacknowledged()
        self._delete(self.nodes.keys() - self._whole - {self._head.checkpoint_id})

    @property
    def head(self) -> Node | None:
        """The active checkpoint; ``None`` before the first step."""
        return self.nodes[self._head.checkpoint_id] if self._head.checkpoint_id else None

    def node(self, checkpoint_id: str) -> Node:
        """A checkpoint that can be loaded.

        Raises:
            Refused: 404, there is none; 410, it was pruned.
        """
        node = self.nodes.get(checkpoint_id)
        if node is None:
            raise Refused(404, f"model {self.record.slug} has no checkpoint {checkpoint_id!r}")
        if checkpoint_id not in self._whole:
            raise self._pruned(node)
        return node

    def id_of(self, handle: str) -> str:
        """The id of the node whose ``checkpoint_name`` this is; anything else as it is."""
        return next((one for one in self.nodes if str(self.paths(one)[0]) == handle), handle)

    def checkpoints(self) -> list[Checkpoint]:
        """Every node, oldest first, the head marked; pruned ones have no ``checkpoint_name``."""
        return [self._as_listed(node) for node in self.nodes.values()]

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
        checkpoint_id = node.checkpoint.id
        if (refused := self._nodes / checkpoint_id).exists():
            discard(refused)  # of a step that was refused and could not be undone then
        with new_directory(self._nodes / checkpoint_id) as new:
            weights, optimizer = (new / path.name for path in self.paths(checkpoint_id))
            save_state(weights, optimizer, state)
            (new / "meta.json").write_text(node.model_dump_json())
        head = Head(checkpoint_id=checkpoint_id, serial=node.serial)
        try:
            self._write_head(head)
        except OSError:
            # Left behind, it would be adopted at the next start although its step was refused. But should the
            # head file name it already, that must not be found without it.
            if self._written_head() == head:
                with contextlib.suppress(OSError):
                    self._write_head(self._head)
            if self._written_head() != head:
                discard(self._nodes / checkpoint_id)
            raise
        # New objects: the event loop may be reading the old ones while this thread saves.
        self.nodes = {**self.nodes, checkpoint_id: node}
        self._whole |= {checkpoint_id}
        self._head = head

    def prune(self, keep: KeepSection, *, asked: Collection[str] = ()) -> None:
        """Delete the tensors of nodes that need not be kept; what fails is tried again after a restart.

        Those that are *asked* for are kept, whatever *keep* says.
        """
        kept = wanted(
            list(self.nodes.values()),
            head=self._head.checkpoint_id,
            whole=self._whole,
            keep=keep,
            asked=asked,
        )
        # Known before it is true, so that nobody begins to load what is going.
        gone, self._whole = self._whole - kept, self._whole & kept
        self._delete(gone)
        if gone:
            log.info("checkpoint.pruned", model=self.record.slug, checkpoints=sorted(gone))

    def set_head(self, checkpoint_id: str) -> None:
        """Point the head at a node, durably.

        Raises:
            OSError: the head is as before.
        """
        head = Head(checkpoint_id=checkpoint_id, serial=max(node.serial for node in self.nodes.values()))
        self._write_head(head)
        self._head = head

    def load(self, node: Node | None) -> TrainState:
        """The state at *node*, or before the first step, on the CPU.

        Raises:
            Refused: 410, it was pruned.
        """
        if node is None:
            return fresh_state(load_file(self.directory / "initial.safetensors"))
        weights, optimizer = self.paths(node.checkpoint.id)
        try:
            return load_state(weights, optimizer, node.step)
        except FileNotFoundError:
            raise self._pruned(node) from None

    def _delete(self, checkpoint_ids: Collection[str | None]) -> None:
        for path in [path for one in checkpoint_ids if one for path in self.paths(one)]:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _as_listed(self, node: Node) -> Checkpoint:
        change: dict[str, object] = {"is_active": node.checkpoint.id == self._head.checkpoint_id}
        if node.checkpoint.id not in self._whole:
            change["checkpoint_name"] = None
        return node.checkpoint.model_copy(update=change)

    def _pruned(self, node: Node) -> Refused:
        kept = [one.checkpoint for one in self.nodes.values() if one.checkpoint.id in self._whole]
        named = ", ".join(f"{one.name} {one.id}" for one in kept[-NAMED_WHEN_PRUNED:])
        return Refused(
            410,
            f"checkpoint {node.checkpoint.id} ({node.checkpoint.name}) of model {self.record.slug} was "
            f"pruned, as local.keep asks; kept are: {named}",
        )

    def _write_head(self, head: Head) -> None:
        write_file(self.directory / "head.json", head.model_dump_json().encode())

    def _written_head(self) -> Head:
        path = self.directory / "head.json"
        return read_record(Head, path) if path.exists() else Head()

    def _read_head(self) -> Head:
        head = self._written_head()
        if head.checkpoint_id is not None and head.checkpoint_id not in self.nodes:
            raise StateError(
                f"{self._nodes / head.checkpoint_id}: the head of model {self.record.slug} is not there; put "
                "the directory back from a copy, or move that of the model away"
            )
        return head

    def _adopt_unacknowledged(self) -> None:
        """Make a node whose save was cut before the head file the head, or the newest without that file."""
        newest = max(self.nodes.values(), key=lambda node: node.serial, default=None)
        if newest is None or newest.serial <= self._head.serial:
            return
        if newest.checkpoint.id not in self._whole:
            # Its step was refused, and it was being deleted.
            discard(self._nodes / newest.checkpoint.id)
            del self.nodes[newest.checkpoint.id]
            log.warning("checkpoint.discarded", model=self.record.slug, leftover=newest.checkpoint.id)
        else:
            log.warning("head.set", model=self.record.slug, checkpoint=newest.checkpoint.id, adopted=True)
            self.set_head(newest.checkpoint.id)


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
