from __future__ import annotations

import pytest

from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.rules.settlement import Applied, NotApplied, settle
from hud_orchestrator.wire import Checkpoint


def node(name: str, parent: str | None, *, head: bool = False) -> Checkpoint:
    return Checkpoint(id=name, prev_model_checkpoint_id=parent, is_active=head)


TREE = [node("c1", None), node("c2", "c1", head=True)]


def test_a_new_node_on_the_head_from_before_is_the_lost_step() -> None:
    verdict = settle(TREE, head_before="c1", optim_step_called=True, explained={"c1"})

    assert verdict == Applied(checkpoint=TREE[1])


def test_the_first_step_of_a_fresh_fork_is_found_without_a_parent() -> None:
    verdict = settle([node("c1", None, head=True)], head_before=None, optim_step_called=True, explained=())

    assert isinstance(verdict, Applied)


def test_without_a_new_node_the_step_was_not_applied() -> None:
    verdict = settle(TREE, head_before="c2", optim_step_called=True, explained={"c1", "c2"})

    assert isinstance(verdict, NotApplied)


def test_a_node_that_an_earlier_step_made_explains_nothing_else() -> None:
    branched = [*TREE, node("c3", "c1")]

    verdict = settle(branched, head_before="c1", optim_step_called=True, explained={"c1", "c2"})

    assert verdict == Applied(checkpoint=branched[2])


def test_two_new_nodes_are_more_than_one_step_can_have_made() -> None:
    with pytest.raises(HeadMoved, match="somebody else"):
        settle([*TREE, node("c3", "c1")], head_before="c1", optim_step_called=True, explained={"c1"})


def test_a_new_head_without_an_optim_step_of_ours_is_somebody_elses() -> None:
    with pytest.raises(HeadMoved, match="slug of its own"):
        settle(TREE, head_before="c1", optim_step_called=False, explained={"c1"})
