"""Where a run stands: its model, the step it continues after, and what an earlier end left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hud_orchestrator.clients.catalog import Catalog, head
from hud_orchestrator.errors import ConfigError, HeadMoved, RequestRejected
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Group, Policy
from hud_orchestrator.rules.settlement import Applied, settle
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import Ledger, PlannedStep
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import Checkpoint, Model

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the stages continue from."""

    policy: Policy
    """The head, with the number of the last consumed step as its version."""
    versions: Mapping[str, int]
    """Every checkpoint of this run and the version it was."""
    ended: frozenset[int]
    """Groups that are over."""
    waiting: tuple[Group, ...]
    """Groups that are finished and not trained on."""


async def find_or_fork(catalog: Catalog, *, slug: str, base: str | None) -> Model:
    """The model to train, forked from *base* when the catalog has no *slug*.

    Raises:
        ConfigError: there is neither the slug nor a base to fork from, or it cannot be trained.
    """
    model = await catalog.find(slug)
    if model is not None:
        if not model.is_trainable:
            raise ConfigError(
                f"model.slug: {slug!r} cannot be trained; choose a slug of your own "
                "and fork from it by model.base"
            )
        log.info("model.found", slug=model.model_name, id=model.id)
        return model
    if base is None:
        raise ConfigError(
            f"model.slug: the catalog has no model {slug!r}; set model.base to what it should be forked from"
        )
    try:
        model = await catalog.fork(base, name=slug)
    except RequestRejected as error:
        # A fork whose answer was lost is answered 409 when it is asked for again.
        found = await catalog.find(slug) if error.status == 409 else None
        if found is None:
            raise
        model = found
    log.info("model.forked", slug=model.model_name, id=model.id, base=base)
    return model


async def standing(
    *, catalog: Catalog, model: Model, history: History, ledger: Ledger, trajectories: Trajectories
) -> Standing:
    """Settle what an earlier end left open, check the head, and say where the run continues.

    Raises:
        HeadMoved: the head is not where this run left it.
    """
    tree = await catalog.checkpoints(model.id)
    active = head(tree)
    first_head = await history.get("first_head")
    if first_head is None:
        await history.set("first_head", active.id if active else "")
        first_head = active.id if active else ""
    open_step = await ledger.open_step()
    if open_step is not None:
        await _settle(catalog, model, tree, open_step, history=history, ledger=ledger)
    steps = await history.steps()
    checkpoint = next((s.checkpoint for s in reversed(steps) if s.checkpoint is not None), first_head or None)
    if (active.id if active else None) != checkpoint:
        raise HeadMoved(
            f"this run left {model.model_name} at checkpoint {checkpoint or 'none'}, and its head is "
            f"{active.id if active else 'none'}: somebody else trained it or moved its head; "
            "set the head back, or start a run with another run.name"
        )
    return Standing(
        policy=Policy(version=steps[-1].number if steps else 0, checkpoint=checkpoint),
        versions={s.checkpoint: s.number for s in steps if s.checkpoint is not None},
        ended=frozenset(await trajectories.ended()),
        waiting=tuple(await trajectories.waiting()),
    )


async def _settle(
    catalog: Catalog,
    model: Model,
    tree: list[Checkpoint],
    step: PlannedStep,
    *,
    history: History,
    ledger: Ledger,
) -> None:
    explained = {s.checkpoint for s in await history.steps() if s.checkpoint is not None}
    verdict = settle(
        tree,
        head_before=step.head_before,
        optim_step_called="optim_step" in step.called,
        explained=explained,
    )
    if isinstance(verdict, Applied):
        node = verdict.checkpoint
        groups = await ledger.groups_of(step.id)
        metrics = {"reward_mean": node.mean_reward or 0.0}
        detail = f"adopted: checkpoint {node.id} has the parent {step.head_before}"
        await ledger.applied(step.id, checkpoint=node.id, metrics=metrics, trained=groups, detail=detail)
        log.info("step.adopted", step=step.number, checkpoint=node.id)
        return
    if step.called and step.head_before is not None:
        # Gradients of its forward_backward may have accumulated; setting the head drops them.
        await catalog.set_head(model.id, step.head_before)
    await ledger.abandoned(step.id, detail=verdict.evidence)
    log.info("step.abandoned", step=step.number, evidence=verdict.evidence)
