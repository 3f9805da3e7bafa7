"""Where a run stands: its model, the step it continues after, and what an earlier end left open."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio

from hud_orchestrator.clients.catalog import Catalog
from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.errors import ConfigError, RequestRejected, RunFailed
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Dropped, Ending, Group, Policy
from hud_orchestrator.rewinding import go_back_if_asked, line_of
from hud_orchestrator.rules.settlement import NotApplied
from hud_orchestrator.settling import Settler
from hud_orchestrator.store.rollbacks import Rollback, Rollbacks
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import Model

FORKING_S = 180.0
"""Longest wait for a fork that was asked for before: the base may have to be made or loaded for it."""

FORK_LOOK_S = 2.0

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the stages continue from."""

    model: Model
    """What is trained."""
    policy: Policy
    """The head, with the number of the last consumed step as its version."""
    versions: Mapping[str, int]
    """Every checkpoint of this run and the version it was."""
    abandoned: frozenset[str] = frozenset()
    """Checkpoints that are in no step, or that the run has gone back from."""
    went_back: Rollback | None = None
    """What has just led here, if the run has not simply gone on."""
    ended: frozenset[int]
    """Groups that are over."""
    dropped: Mapping[int, Sequence[Dropped]] = field(default_factory=dict)
    """Those of them that were tried for a step which is not over, by the step."""
    waiting: tuple[Group, ...]
    """Groups that are finished and not trained on."""
    begun: tuple[Group, ...] = ()
    """Groups of which some members are finished."""


async def find_or_fork(catalog: Catalog, *, slug: str, base: str | None) -> Model:
    """The model to train, forked from *base* when the catalog has no *slug*.

    Raises:
        ConfigError: there is neither the slug nor a base to fork from, or it cannot be trained.
    """
    model = await catalog.find(slug, whole=True)
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
    model = await _fork(catalog, base, name=slug)
    log.info("model.forked", slug=model.model_name, id=model.id, base=base)
    return model


async def standing(
    *,
    settler: Settler,
    model: Model,
    base: str | None,
    keeps_gradients: bool,
    trajectories: Trajectories,
    rollbacks: Rollbacks,
) -> Standing:
    """Settle what is open, go back if that is asked for, check the head, and say where the run continues.

    Args:
        settler: of the run and *model*.
        model: the one that is trained.
        base: what it was forked from.
        keeps_gradients: whether gradients of a step that was cut off may still wait at the service: it was
            running while the daemon was not, and has given no lease since.
        trajectories: the run's groups.
        rollbacks: of the run.

    Raises:
        HeadMoved: the head is not where this run left it.
        RunFailed: it is asked to go back, and cannot.
    """
    await settler.begin()
    step = await settler.ledger.open_step()
    if step is not None:
        verdict = await settler.settle(step)
        if isinstance(verdict, NotApplied) and await settler.ledger.open_step() is not None:
            if verdict.strays or (step.may_have_accumulated and keeps_gradients):
                # Before the step is closed: a kill in between must not come back to the old fork.
                model = await _fork_anew(settler.catalog, model, base)
                settler = replace(settler, model_id=model.id)
                await settler.writer.take(model.id)
                await settler.history.set("slug", model.model_name)
            await settler.close(step, verdict)
    went_back = await go_back_if_asked(settler, rollbacks, model_name=model.model_name)
    line = await line_of(settler.history)
    # A step that was lost is done again from its own batch; then those of the oldest policy come, which may
    # be too old for the step after.
    again = await settler.ledger.given_up(line.last + 1)
    unended = sorted(
        await trajectories.unended(), key=lambda one: (one.number not in again, one.oldest_version or 0)
    )
    checkpoint = line.head(line.last)
    await settler.regain(model.model_name, checkpoint)
    await settler.writer.found_as_left()
    return Standing(
        model=model,
        policy=Policy(version=line.last, checkpoint=checkpoint),
        # That of a head that stayed for several steps is the oldest one.
        versions={head: step for step, head in [*enumerate(line.heads)][::-1] if head is not None},
        abandoned=frozenset(await rollbacks.abandoned() | await settler.beside()),
        went_back=went_back,
        ended=frozenset(await trajectories.ended()),
        dropped=await trajectories.dropped(after=line.last),
        waiting=tuple(group for group in unended if group.whole),
        begun=tuple(group for group in unended if not group.whole),
    )


async def without_forgotten(
    stand: Standing, platform: HostedRollouts, trajectories: Trajectories
) -> Standing:
    """*stand* without the groups that wait for a training which would be refused.

    A hosted rollout trains by what the service knows of its trace, and the embedded service forgets that
    when it ends.
    """
    lost = [
        group
        for group in (*stand.waiting, *stand.begun)
        if not all([await _is_known(platform, r.trace_id) for r in group.rollouts if r.remote])
    ]
    return await _without(stand, lost, Ending.NO_TOKENS, trajectories)


async def without_stale(stand: Standing, trajectories: Trajectories, *, staleness: int) -> Standing:
    """*stand* without the begun groups that would be too old by the time they are whole.

    Those that are whole are swept when the batch is cut.
    """
    oldest = stand.policy.version - staleness
    stale = [one for one in stand.begun if one.oldest_version is not None and one.oldest_version < oldest]
    return await _without(stand, stale, Ending.STALE, trajectories)


async def _without(
    stand: Standing, lost: Sequence[Group], ending: Ending, trajectories: Trajectories
) -> Standing:
    step = stand.policy.version + 1
    for group in lost:
        await trajectories.add(group, ending=ending, step=step)
        log.info("group.dropped", group=group.number, step=step, reason=ending, members=len(group.rollouts))
    return replace(
        stand,
        ended=stand.ended | {group.number for group in lost},
        waiting=tuple(group for group in stand.waiting if group not in lost),
        begun=tuple(group for group in stand.begun if group not in lost),
    )


async def _is_known(platform: HostedRollouts, trace_id: str) -> bool:
    try:
        return (await platform.state(trace_id)).num_turns != 0
    except RequestRejected:
        return False


async def _fork(catalog: Catalog, base: str, *, name: str) -> Model:
    try:
        return await catalog.fork(base, name=name)
    except RequestRejected as error:
        if error.status != 409:
            raise
        # A fork whose answer was lost is answered 409 when it is asked for again.
        found = await _forked(catalog, name)
        if found is None:
            raise
        return found


async def _forked(catalog: Catalog, name: str) -> Model | None:
    """The fork of that name, which is listed only when it has been made."""
    until = anyio.current_time() + FORKING_S
    while (found := await catalog.find(name, whole=True)) is None and anyio.current_time() < until:
        log.info("model.awaited", slug=name)
        await anyio.sleep(FORK_LOOK_S)
    return found


async def _fork_anew(catalog: Catalog, model: Model, base: str | None) -> Model:
    """A fork under another name, for one whose left-over gradients no head can be set to drop.

    Raises:
        RunFailed: there is no base to fork from.
    """
    if base is None:
        raise RunFailed(
            f"{model.model_name} may hold gradients of a call whose answer was lost, and has no "
            "checkpoint to go back to; set model.base, or choose another model.slug and begin with --fresh"
        )
    forked = await _fork(catalog, base, name=f"{model.model_name}-{uuid.uuid4().hex[:6]}")
    log.info("model.forked", slug=forked.model_name, id=forked.id, base=base, instead_of=model.model_name)
    return forked
