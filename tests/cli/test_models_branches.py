"""How a tree of checkpoints becomes lines."""

from __future__ import annotations

from hud_orchestrator.cli.models.branches import ASCII, branches
from hud_orchestrator.wire import Checkpoint


def drawn(*edges: tuple[str, str | None], head: str | None = None) -> list[str]:
    nodes = [
        Checkpoint(id=one, prev_model_checkpoint_id=parent, is_active=one == head) for one, parent in edges
    ]
    return [prefix + node.id for prefix, node in branches(nodes, ASCII)]


def test_a_long_line_of_checkpoints_stays_in_one_column() -> None:
    edges = [(str(n), str(n - 1) if n else None) for n in range(5000)]

    assert drawn(*edges) == [str(n) for n in range(5000)]


def test_branches_of_branches_nest_and_the_way_to_the_head_goes_on_below_them() -> None:
    edges = [("a", None), ("b", "a"), ("c", "b"), ("x", "a"), ("y", "x"), ("z", "x"), ("d", "c")]

    assert drawn(*edges, head="d") == ["a", "|- x", "|  |- y", "|  z", "b", "c", "d"]
    assert drawn(*edges, head="y") == ["a", "|- b", "|  c", "|  d", "x", "|- z", "y"]


def test_a_checkpoint_whose_parent_is_not_listed_begins_a_line_of_its_own() -> None:
    assert drawn(("b", "gone"), ("c", "b"), ("k", None), head="c") == ["k", "b", "c"]
