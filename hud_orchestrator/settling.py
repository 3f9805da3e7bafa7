"""Settle steps against the checkpoint tree: at the start of a run, and after every step of it.

optim_step confirmed --the node is there, whole, and the head--> the step is applied
outcome unknown, the node is not shown, or it is not what was asked for:
    take the lease anew where the service gives leases: nothing of the step can arrive or be left then;
    without one, or where a node was promised or no head can be set back, watch the tree for ``settle_s``;
    then set the head back, which drops what has accumulated, unless somebody has moved it; look again
      a node that only this step can have made  --> adopted
      otherwise                                 --> abandoned, or skipped when lost steps are dropped
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import anyio

from hud_orchestrator.clients.catalog import Catalog, head
from hud_orchestrator.clients.retry import ONCE, patiently
from hud_orchestrator.errors import HeadMoved, OutcomeUnknown
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Ending, StepState
from hud_orchestrator.rules.settlement import (
    Applied,
    Claim,
    NotApplied,
    Others,
    check_strangers,
    flaw,
    miscounted,
    settle,
)
from hud_orchestrator.rules.steps import unapplied
from hud_orchestrator.single_writer import HEADS_SET, SingleWriter
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import Ledger, PlannedStep
from hud_orchestrator.wire import Checkpoint

LOOK_S = 1.0
"""Between two looks at the tree."""

log = get_logger()


class Flawed(Exception):
    """The service made a checkpoint, and not the one that was asked for."""


def _doubted(step: PlannedStep) -> str:
    """What is noted of an attempt at a step whose datums were not counted as its calls' were."""
    return f"not in attempt {step.id}"


def norms(node: Checkpoint) -> dict[str, float]:
    """What a service says of the step that made *node*, and of nothing else before: it may say nothing."""
    return {name: node.metrics[name] for name in ("grad_norm", "update_norm") if name in node.metrics}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settler:
    """Knows the tree and the ledger of one run."""

    catalog: Catalog
    model_id: str
    ledger: Ledger
    history: History
    settle_s: float
    """Seconds that the tree is watched before what it does not show counts as not there."""
    writer: SingleWriter
    """The run's lease, which is taken anew to settle a step."""
    can_fork: bool = True
    """Whether another fork can be made of what the model was forked from."""
    redo: bool = True
    """Whether groups of a lost step are free for another one."""

    @property
    def can_drop(self) -> bool:
        """Whether gradients can be dropped where no head can be set: by a new lease, or with the fork."""
        return self.writer.fences or self.can_fork

    async def begin(self) -> None:
        """Remember the tree as it was before the run's first step, and drop what others have accumulated.

        Must be called before anything is settled or trained; does nothing on a run that goes on. A model
        without a checkpoint cannot be cleared: there is no head to set.
        """
        if await self.history.get("first_tree") is None:
            tree = await self.catalog.checkpoints(self.model_id)
            active = head(tree)
            if await self.history.get("first_head") is None:
                await self.history.set("first_head", active.id if active else "")
            if active is not None:
                await self._set_head(active.id)
            await self.history.set("first_tree", json.dumps([node.id for node in tree]))

    async def confirm(self, step: PlannedStep, checkpoint: str) -> Checkpoint:
        """Wait until the tree shows what a confirmed ``optim_step`` made, and return it.

        Raises:
            Flawed: it is not what was asked for.
            OutcomeUnknown: it is not there.
            HeadMoved: it is not the head, and no late call of ours explains why.
        """
        claim = await self._claim(step)
        tree = await self._shown(checkpoint)
        node = next((node for node in tree if node.id == checkpoint), None)
        active = head(tree)
        await self._check_strangers(tree)
        if node is None:
            raise OutcomeUnknown(
                f"step {step.number} made checkpoint {checkpoint}, which the list of checkpoints has not "
                f"shown for {self.settle_s:g} s; if the service is slow to list, raise trainer.settle_s"
            )
        if (wrong := flaw(node, claim)) is not None:
            if miscounted(node, claim) and await self.history.get("counts_agree") is None:
                await self.history.set("counts_agree", _doubted(step))
            raise Flawed(wrong)
        if active is None or not await self._regained(node, active):
            raise HeadMoved(
                f"step {step.number} made checkpoint {checkpoint}, and the head is "
                f"{active.id if active else 'unset'}: somebody else moves this model's head; "
                "give each run a slug of its own"
            )
        await self._compare(step, node)
        return node

    async def settle(self, step: PlannedStep) -> Applied | NotApplied:
        """Find out what became of an open step, clear what is left of it, and close its row.

        A step without a head before it has nothing that the head could be set to. Only a new lease clears
        it; without one, or when the tree has nodes that are not to be built on, it stays open when it was
        not applied: see :meth:`close`.

        Raises:
            HeadMoved, FencedOff: somebody else trains the model.
        """
        # After a clean cut nothing of the step can still arrive; a node that is not shown yet stays beside
        # the history once the head is set back. Where no head can be, or one is known of, it is awaited.
        cut = await self.writer.take(self.model_id)
        hurries = cut and step.head_before is not None and step.checkpoint is None
        verdict = await self._verdict(step, watch_s=0 if hurries else self.settle_s)
        if isinstance(verdict, NotApplied) and step.head_before is not None:
            await self._check_others(step, step.head_before)
            # This also waits for a call that the service is still busy with, so look again.
            await self._set_back(step.head_before)
            verdict = await self._verdict(step, watch_s=0)
        if isinstance(verdict, Applied):
            await self._adopt(step, verdict.checkpoint)
        elif step.head_before is not None or (cut and not verdict.strays):
            await self.close(step, verdict)
        return verdict

    async def close(self, step: PlannedStep, verdict: NotApplied) -> None:
        """The step did not happen: its groups are free again, or end with it if something of it was sent."""
        if unapplied(redo=self.redo, called=bool(step.called)) is StepState.ABANDONED:
            await self.ledger.abandoned(step.id, detail=verdict.evidence, strays=verdict.strays)
        else:
            await self.ledger.skipped(
                step.id, metrics=step.metrics, groups=step.groups, ending=Ending.LOST,
                detail=verdict.evidence, strays=verdict.strays,
            )  # fmt: skip
        log.info("step.abandoned", step=step.number, evidence=verdict.evidence, redone=self.redo)

    async def beside(self) -> set[str]:
        """Checkpoints beside the run's history: from before its first head, and those that were put aside."""
        before = await self._before() - {await self.history.get("first_head")}
        return before | (await self.ledger.checkpoints() - await self.ledger.checkpoints(strays=False))

    async def regain(self, model_name: str, expected: str | None) -> None:
        """See that the head is where this run left it; a late call of ours that moved it is undone.

        Raises:
            HeadMoved: it is not, and no call of ours can have moved it.
        """
        tree = await self._shown(expected)
        await self._check_strangers(tree)
        active = head(tree)
        node = next((node for node in tree if node.id == expected), None)
        if node is None or active is None:
            left = expected is None and active is None
        else:
            left = await self._regained(node, active)
        if not left:
            raise HeadMoved(
                f"this run left {model_name} at checkpoint {expected or 'none'}, and its head is "
                f"{active.id if active else 'none'}: somebody else trained it or moved its head; "
                "set the head back, or start a run with another run.name"
            )

    async def move_head(self, model_name: str, *, left_at: str | None, to: str) -> None:
        """Set the head, which drops what has accumulated; it was left elsewhere, or is there already.

        Raises:
            HeadMoved: it is at neither place, and no call of ours explains why.
            RequestRejected: the service has no such checkpoint any more.
        """
        # With a lease, nothing of the line that is left can arrive after this.
        await self.writer.take(self.model_id)
        tree = await self.catalog.checkpoints(self.model_id)
        active = head(tree)
        if active is None or active.id != to:
            await self.regain(model_name, left_at)
        else:
            await self._check_strangers(tree)
        await self._set_head(to)

    async def _regained(self, node: Checkpoint, active: Checkpoint) -> bool:
        if active.id == node.id:
            return True
        late = active.id in await self._heads_set()
        others = await self.writer.others_after(len(await self.history.made()))
        if not late and (others is Others.SURELY or active.id in await self._explained()):
            return False
        log.warning("head.regained", head=node.id, late=active.id)
        await self._set_head(node.id)
        if late:
            # A request of ours to set the head, given up and sent again, arrived once more. It explains
            # that until it is undone.
            await self._forget_head(active.id)
        return True

    async def _set_back(self, to: str, *allowed: str | None) -> None:
        """Set the head, which is there, at one of *allowed*, or where a call of ours can have left it.

        Raises:
            HeadMoved: it is at a checkpoint of before, and the list is up to date.
        """
        late, until = None, anyio.current_time() + self.settle_s
        before = await self._before() | await self.ledger.checkpoints(strays=False)
        while True:
            tree = await self.catalog.checkpoints(self.model_id)
            active = head(tree)
            # Any other checkpoint may be of a lost call.
            if active is None or active.id in (to, *allowed) or active.id not in before:
                break
            if to not in {node.id for node in tree}:  # an old list
                break
            if active.id in await self._heads_set():
                late = active.id
                break
            if anyio.current_time() >= until:
                raise HeadMoved(
                    f"this run has a step in hand and wants its model at checkpoint {to}, and the head is "
                    f"{active.id}: somebody else moved it; set the head back, or start a run with another "
                    "run.name"
                )
            await anyio.sleep(LOOK_S)
        await self._set_head(to)
        if late is not None:
            await self._forget_head(late)

    async def _check_others(self, step: PlannedStep, to: str) -> None:
        """See that the head is not at what others have made since the step before, and may be set to *to*.

        Raises:
            HeadMoved: it is, as far as anybody can tell.
        """
        if await self.writer.others_after(step.number - 1) is not Others.SURELY:
            return
        active = head(await self.catalog.checkpoints(self.model_id))
        if active is not None and active.id not in {to, *await self._explained()}:
            done = "done again" if to == step.head_before else "as it was made"
            raise HeadMoved(
                f"this run has step {step.number} in hand, somebody else has had the model since the step "
                f"before, and its head is {active.id}, which may be theirs; set the head back to {to} to "
                f"have the step {done}, or start a run with another run.name"
            )

    async def _forget_head(self, checkpoint: str) -> None:
        """A request of ours explains one move, for a person who insists is not fought."""
        ours = await self._heads_set()
        ours.remove(checkpoint)
        await self.history.set(HEADS_SET, json.dumps(ours))

    async def _set_head(self, checkpoint: str) -> None:
        """Set the head, and remember before each request that it was asked for: it may come late."""

        async def ask() -> None:
            await self.history.set(HEADS_SET, json.dumps([*await self._heads_set(), checkpoint]))
            await self.catalog.set_head(self.model_id, checkpoint, retry=ONCE)

        await patiently(ask)

    async def _heads_set(self) -> list[str]:
        heads: list[str] = json.loads(await self.history.get(HEADS_SET) or "[]")
        return heads

    async def _compare(self, step: PlannedStep, node: Checkpoint) -> None:
        """Learn whether the service counts and rounds as we do, from a step that is taken for applied.

        A count is compared from the second step on; should that disagree, the step is done again, and if it
        then still does, the service counts in a way of its own. A rate is compared once it has agreed, and
        no more once that of an answered step has not: the service rounds.
        """
        agree = await self.history.get("counts_agree")
        if agree not in ("yes", "no") and None not in (node.num_datums, step.num_datums):
            if node.num_datums == step.num_datums:
                await self.history.set("counts_agree", "yes")
            elif agree is not None:
                await self.history.set("counts_agree", "no")
        if (
            step.checkpoint is not None
            and node.learning_rate is not None
            and await self.writer.never_fenced()
        ):
            agrees = "yes" if node.learning_rate == step.learning_rate else "no"
            if await self.history.get("rates_agree") not in (agrees, "no"):
                await self.history.set("rates_agree", agrees)

    async def _shown(self, checkpoint: str | None) -> list[Checkpoint]:
        """The tree, as soon as it shows *checkpoint* as its head, or when it has been watched for long."""
        until = anyio.current_time() + self.settle_s
        while True:
            tree = await self.catalog.checkpoints(self.model_id)
            active = head(tree)
            if (active.id if active else None) == checkpoint or anyio.current_time() >= until:
                return tree
            await anyio.sleep(LOOK_S)

    async def _verdict(self, step: PlannedStep, *, watch_s: float) -> Applied | NotApplied:
        claim, explained = await self._claim(step), await self._explained()
        until = anyio.current_time() + watch_s
        while True:
            tree = await self.catalog.checkpoints(self.model_id)
            verdict = settle(tree, claim, explained=explained)
            final = isinstance(verdict, Applied) or verdict.final
            if final or anyio.current_time() >= until:
                await self._check_strangers(tree)
                return verdict
            await anyio.sleep(LOOK_S)

    async def _claim(self, step: PlannedStep) -> Claim:
        agree = await self.history.get("counts_agree")
        # Where there is no head to go back to, doing the step again takes another fork. A single call cannot
        # have lost a part of its gradient.
        doubtful = step.head_before is not None or (step.accumulations > 1 and self.can_fork)
        counts = agree == "yes" or (agree in (None, _doubted(step)) and doubtful)
        # What an answer names is the step's, whatever its rate.
        signs = step.checkpoint is None and await self.history.get("rates_agree") == "yes"
        signs = signs and await self.writer.never_fenced()
        return Claim(
            head_before=step.head_before,
            sent="optim_step" in step.called,
            checkpoint=step.checkpoint,
            num_datums=step.num_datums if counts else None,
            learning_rate=step.learning_rate if signs else None,
            rivals=step.has_rivals,
            others=await self.writer.others_after(step.number - 1),
        )

    async def _explained(self) -> set[str]:
        return await self._before() | await self.ledger.checkpoints()

    async def _before(self) -> set[str]:
        return set(json.loads(await self.history.get("first_tree") or "[]"))

    async def _check_strangers(self, tree: list[Checkpoint]) -> None:
        before, known = await self._before(), await self.ledger.checkpoints()
        explained = before | known
        parents = {node.prev_model_checkpoint_id for node in tree if node.id not in explained}
        check_strangers(
            tree,
            before=before,
            optim_steps=await self.ledger.optim_steps(),
            known=known,
            # If all were made under leases, none of ours can have come when another head was there already.
            stood_on=await self.ledger.stood_on(parents) if await self.writer.always_fenced() else None,
        )

    async def _adopt(self, step: PlannedStep, node: Checkpoint) -> None:
        if not node.is_active:
            await self._check_others(step, node.id)
            await self._set_back(node.id, step.head_before)
        await self._compare(step, node)
        detail = f"adopted: checkpoint {node.id} has the parent {step.head_before}"
        await self.ledger.applied(
            step.id,
            checkpoint=node.id,
            metrics={**step.metrics, **norms(node)},
            trained=step.groups,
            detail=detail,
        )
        log.info("step.adopted", step=step.number, checkpoint=node.id)
