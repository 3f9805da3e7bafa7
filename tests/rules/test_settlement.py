from __future__ import annotations

from functools import partial

import pytest

from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.rules.settlement import (
    Applied,
    Claim,
    NotApplied,
    Others,
    check_strangers,
    flaw,
    settle,
    signed,
)
from hud_orchestrator.wire import Checkpoint


def node(
    name: str,
    parent: str | None,
    *,
    head: bool = False,
    datums: int | None = None,
    rate: float | None = None,
) -> Checkpoint:
    return Checkpoint(
        id=name, prev_model_checkpoint_id=parent, is_active=head, num_datums=datums, learning_rate=rate
    )


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
        (TREE, Claim(head_before="c1", sent=True, others=Others.PERHAPS), "another trainer"),
        (TREE, Claim(head_before="c1", sent=False), "no optim-step was sent"),
        (
            [TREE[0], node("c2", "c1", head=True, datums=8)],
            Claim(head_before="c1", sent=True, num_datums=4),
            "8 datums, and 4 were sent",
        ),
        (
            [TREE[0], node("c2", "c1", head=True, rate=signed(1e-3, "fffff0"))],
            Claim(head_before="c1", sent=True, learning_rate=signed(1e-3, "ffffe0")),
            "0.001000000000232830",
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


def test_a_service_that_tells_no_figures_is_held_to_none() -> None:
    assert flaw(TREE[1], Claim(head_before="c1", sent=True, num_datums=4, learning_rate=1e-3)) is None


@pytest.mark.parametrize("rate", [1.0, 3e-4, 1e-12, 7.0])
def test_batches_ask_for_rates_of_their_own_that_are_all_but_the_same(rate: float) -> None:
    rates = [signed(rate, f"{number:05x}ffff") for number in range(0, 2**20, 37)]

    assert len(set(rates)) == len(rates)
    assert all(0 <= one - rate < 2.4e-10 * rate for one in rates)


def test_more_nodes_than_this_run_asked_for_are_somebody_elses() -> None:
    check = partial(check_strangers, TREE, known=(), stood_on=None)
    check(before=(), optim_steps=2)
    check(before={"c1"}, optim_steps=1)

    with pytest.raises(HeadMoved, match="somebody else trains this model"):
        check(before={"c1"}, optim_steps=0)


@pytest.mark.parametrize("stood_on", [{"c1"}, {None, "c1"}])
def test_under_a_lease_a_node_where_this_run_asked_for_none_is_somebody_elses(
    stood_on: set[str | None],
) -> None:
    tree = [*TREE, node("c3", "c2")]
    check = partial(check_strangers, before={"c1"}, optim_steps=3)
    check(tree, known=(), stood_on=stood_on)  # c3 on top of a late one of ours
    check(tree, known={"c2", "c3"}, stood_on=stood_on)
    check(tree, known={"c2"}, stood_on=None)

    with pytest.raises(HeadMoved, match="checkpoint c3 was made on top of c2, and this run asked for none"):
        check(tree, known={"c2"}, stood_on=stood_on)
