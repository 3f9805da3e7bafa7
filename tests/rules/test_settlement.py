from __future__ import annotations

import pytest

from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.rules.settlement import Applied, Claim, NotApplied, check_strangers, flaw, settle
from hud_orchestrator.wire import Checkpoint


def node(name: str, parent: str | None, *, head: bool = False, datums: int | None = None) -> Checkpoint:
    return Checkpoint(id=name, prev_model_checkpoint_id=parent, is_active=head, num_datums=datums)


TREE = [node("c1", None), node("c2", "c1", head=True)]
LOST = Claim(head_before="c1", sent=True)


def test_a_new_node_on_the_head_from_before_is_the_lost_step() -> None:
    assert settle(TREE, LOST, explained={"c1"}) == Applied(checkpoint=TREE[1])


def test_the_first_step_of_a_fresh_fork_is_found_without_a_parent() -> None:
    verdict = settle([node("c1", None, head=True)], Claim(head_before=None, sent=True), explained=())

    assert isinstance(verdict, Applied)


def test_without_a_new_node_the_step_was_not_applied_but_it_may_still_come() -> None:
    verdict = settle(TREE, Claim(head_before="c2", sent=True), explained={"c1", "c2"})

    assert isinstance(verdict, NotApplied)
    assert not verdict.final


def test_a_node_that_something_else_explains_is_not_the_steps() -> None:
    branched = [*TREE, node("c3", "c1")]

    verdict = settle(branched, LOST, explained={"c1", "c2"})

    assert verdict == Applied(checkpoint=branched[2])


@pytest.mark.parametrize(
    ("tree", "claim", "why"),
    [
        ([*TREE, node("c3", "c1")], LOST, "2 checkpoints have the parent c1"),
        (TREE, Claim(head_before="c1", sent=True, rivals=True), "earlier attempt"),
        (TREE, Claim(head_before="c1", sent=True, shared=True), "another trainer"),
        (TREE, Claim(head_before="c1", sent=False), "no optim-step was sent"),
        (
            [TREE[0], node("c2", "c1", head=True, datums=8)],
            Claim(head_before="c1", sent=True, num_datums=4),
            "8 datums, and 4 were sent",
        ),
        ([*TREE, node("c3", "c2")], Claim(head_before="c1", sent=True, checkpoint="c3"), "on top of c2"),
    ],
)
def test_a_node_that_may_be_of_something_else_is_never_adopted_now_or_later(
    tree: list[Checkpoint], claim: Claim, why: str
) -> None:
    verdict = settle(tree, claim, explained={"c1"})

    assert isinstance(verdict, NotApplied)
    assert why in verdict.evidence
    assert verdict.final
    assert verdict.strays == tuple(node.id for node in tree if node.id != "c1")


def test_a_confirmed_node_is_the_steps_whatever_else_stands_on_the_head() -> None:
    branched = [*TREE, node("c3", "c1")]
    claim = Claim(head_before="c1", sent=True, checkpoint="c3", rivals=True)

    assert settle(branched, claim, explained={"c1"}) == Applied(checkpoint=branched[2])


def test_a_service_that_tells_no_counts_is_held_to_none() -> None:
    assert flaw(TREE[1], Claim(head_before="c1", sent=True, num_datums=4)) is None


def test_more_nodes_than_this_run_asked_for_are_somebody_elses() -> None:
    check_strangers(TREE, before=(), optim_steps=2)
    check_strangers(TREE, before={"c1"}, optim_steps=1)

    with pytest.raises(HeadMoved, match="somebody else trains this model"):
        check_strangers(TREE, before={"c1"}, optim_steps=0)
