"""A checkpoint tree as lines of text, in which only branches are indented.

step-000001
step-000002
|- step-000003      left behind: the head was set back to step 2
|  step-000004
step-000003         the line that leads to the head
step-000004
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud_orchestrator.wire import Checkpoint


@dataclass(frozen=True, slots=True)
class Glyphs:
    """How a branch begins, and how the column it branched from goes on beside it."""

    begins: str
    beside: str


ASCII = Glyphs("|- ", "|  ")
BOX = Glyphs("\u251c\u2500 ", "\u2502  ")


def branches(nodes: Sequence[Checkpoint], glyphs: Glyphs) -> Iterator[tuple[str, Checkpoint]]:
    """Every node with what to draw before its name.

    Of several children the one on the way to the head goes on in the parent's column, or the last
    one when none is. A node whose parent is not in *nodes* begins a line of its own.
    """
    known = {node.id: node for node in nodes}
    children: dict[str | None, list[Checkpoint]] = defaultdict(list)
    for node in nodes:
        parent = node.prev_model_checkpoint_id
        children[parent if parent in known and parent != node.id else None].append(node)
    way = _way_to_head(known)
    # A stack, not recursion: a run may make thousands of branches, each off the one before.
    waiting = [("", "", child) for child in reversed(_in_order(children[None], way))]
    while waiting:
        first, rest, node = waiting.pop()
        yield first, node
        below = _in_order(children[node.id], way)
        waiting += [(rest, rest, child) for child in below[-1:]]
        waiting += [(rest + glyphs.begins, rest + glyphs.beside, child) for child in reversed(below[:-1])]


def _in_order(siblings: Sequence[Checkpoint], way: set[str]) -> list[Checkpoint]:
    """The one on the way to the head comes last; the others stay as they are."""
    return sorted(siblings, key=lambda node: node.id in way)


def _way_to_head(known: dict[str, Checkpoint]) -> set[str]:
    way: set[str] = set()
    node = next((node for node in known.values() if node.is_active), None)
    while node is not None and node.id not in way:
        way.add(node.id)
        node = known.get(node.prev_model_checkpoint_id or "")
    return way
