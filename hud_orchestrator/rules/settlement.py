"""What became of a step whose answer was lost, read off the checkpoint tree.

A node is taken for the step's own only when nothing else can have made it. In every other case the step
counts as not applied: its head is set back to where it was, which drops what has accumulated, and what
was made meanwhile stays beside the history as a branch that nothing builds on. Work may be done again;
a gradient is never applied twice, and never one that the ledger does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from hud_orchestrator.errors import HeadMoved
from hud_orchestrator.wire import Checkpoint

_STRANGERS = (
    "somebody else trains this model, and this run cannot go on with it; give each run a slug of its own: "
    "another run.name and model.slug, or --fresh"
)


class Others(Enum):
    """Whether somebody else has had the model since the step before."""

    NONE = "none"
    PERHAPS = "perhaps"
    SURELY = "surely"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is known of a step that may have been applied."""

    head_before: str | None
    """The head when the step was planned."""
    sent: bool
    """Whether its ``optim_step`` may have reached the service."""
    checkpoint: str | None = None
    """What the service said that the ``optim_step`` made, if its answer came."""
    num_datums: int | None = None
    """Datums of its accumulating calls, by the service's own count; ``None``: not to be compared."""
    learning_rate: float | None = None
    """What its ``optim_step`` asked for, to the last bit; ``None``: not to be compared."""
    rivals: bool = False
    """Whether an earlier ``optim_step`` on the same head may still arrive."""
    others: Others = Others.NONE
    """Whether somebody else has had the model, and may have built on the same head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The step happened; this is its node."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplied:
    """The step did not happen, or cannot be told from something else that did."""

    evidence: str
    strays: tuple[str, ...] = ()
    """Nodes that nothing explains now, and that no step will be explained by later."""
    final: bool = True
    """Whether another look at the tree could not show the step's node yet."""


def settle(tree: Sequence[Checkpoint], claim: Claim, *, explained: Collection[str]) -> Applied | NotApplied:
    """Decide whether an open step was applied.

    Args:
        tree: the model's checkpoints, oldest first.
        claim: the step's.
        explained: checkpoints that are known to be of something else.
    """
    new = [node for node in tree if node.id not in explained]
    if claim.checkpoint is None:
        found = [node for node in new if node.prev_model_checkpoint_id == claim.head_before]
    else:
        found = [node for node in new if node.id == claim.checkpoint]
    evidence = _objection(found, claim)
    if evidence is None:
        return Applied(checkpoint=found[0])
    return NotApplied(
        evidence=evidence, strays=tuple(node.id for node in new), final=bool(found) or not claim.sent
    )


def flaw(node: Checkpoint, claim: Claim) -> str | None:
    """Why *node*, which the service says is the step's, is not what was asked for; ``None``: it is."""
    if node.prev_model_checkpoint_id != claim.head_before:
        return (
            f"checkpoint {node.id} was made on top of {node.prev_model_checkpoint_id} "
            f"and not of {claim.head_before}"
        )
    if miscounted(node, claim):
        return f"checkpoint {node.id} has {node.num_datums} datums, and {claim.num_datums} were sent for it"
    if None not in (node.learning_rate, claim.learning_rate) and node.learning_rate != claim.learning_rate:
        return (
            f"checkpoint {node.id} was made with the learning rate {node.learning_rate}, and "
            f"{claim.learning_rate} was asked for"
        )
    return None


def miscounted(node: Checkpoint, claim: Claim) -> bool:
    """Whether *node* says that it has more or fewer datums than were sent for it."""
    return None not in (node.num_datums, claim.num_datums) and node.num_datums != claim.num_datums


def signed(learning_rate: float, digest: str) -> float:
    """*learning_rate* with the first 20 bits of a batch's hexadecimal *digest* in its last ones.

    It is the one figure that a step is asked with and that its checkpoint is told with, so it can say whose
    the checkpoint is. It grows by less than 2.4e-10 of itself.
    """
    return learning_rate * (1 + int(digest[:5], 16) * 2.0**-52)


def check_strangers(
    tree: Sequence[Checkpoint],
    *,
    before: Collection[str],
    optim_steps: int,
    known: Collection[str],
    stood_on: Collection[str | None] | None,
) -> None:
    """Refuse a tree that has grown by nodes that this run cannot have made.

    Args:
        tree: the model's checkpoints.
        before: the ones that it had when the run began.
        optim_steps: calls of this run that may have made one.
        known: checkpoints that the ledger accounts for.
        stood_on: heads on which those calls were made; ``None``: they may have come later, on any.

    Raises:
        HeadMoved: somebody else trains the model.
    """
    grown = [node for node in tree if node.id not in before]
    if len(grown) > optim_steps:
        raise HeadMoved(
            f"{len(grown)} checkpoints were made since this run began, the last one {grown[-1].id}, and it "
            f"asked for {optim_steps} at most: {_STRANGERS}"
        )
    new = {node.id: node for node in grown if node.id not in known}
    for node in new.values():
        parent = node.prev_model_checkpoint_id
        if stood_on is not None and parent not in stood_on and parent not in new:
            raise HeadMoved(
                f"checkpoint {node.id} was made on top of {parent or 'none'}, and this run asked for none "
                f"there: {_STRANGERS}"
            )


def _objection(found: Sequence[Checkpoint], claim: Claim) -> str | None:
    if not claim.sent:
        return "no optim-step was sent, or it was refused"
    if not found:
        return f"no checkpoint has the parent {claim.head_before}"
    if claim.checkpoint is not None:
        return flaw(found[0], claim)
    if len(found) > 1:
        return f"{len(found)} checkpoints have the parent {claim.head_before}, and one would be this step's"
    if claim.rivals:
        return f"checkpoint {found[0].id} may be of an earlier attempt on {claim.head_before}"
    if claim.others is not Others.NONE:
        return f"checkpoint {found[0].id} may be of another trainer, who had the model on {claim.head_before}"
    return flaw(found[0], claim)
