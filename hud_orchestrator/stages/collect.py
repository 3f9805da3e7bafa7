"""Rollouts become groups, groups become batches; what does not train ends here, with a reason.

What has arrived is written down before anything else becomes of it, so that a kill costs the attempts in
flight and those of the last few milliseconds. Rollouts that arrive together share a record with the groups
that they make whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.feedback import Permits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Batch, Ending, Group, Rollout, TrainableGroup
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.store.trajectories import Judged, Trajectories
from hud_orchestrator.streams import offer, offered

GATHER_S = 0.003
"""Seconds that a rollout waits for others to be written with: a record costs more than what is in it."""

log = get_logger()


async def collect(
    rollouts: MemoryObjectReceiveStream[Rollout],
    batches: MemoryObjectSendStream[Batch],
    *,
    groups: GroupTable,
    desk: Desk,
    waiting: Sequence[Group],
) -> None:
    """Cut batches up to the last step's. Groups in *waiting* were sampled before a restart.

    Raises:
        RunFailed, ServiceUnreachable: no group could be graded, several times in a row.
    """
    async with rollouts, batches:
        cut = [*desk.cut(), *await desk.take([], [(group, desk.grading.apply(group)) for group in waiting])]
        while all([await offer(batches, batch) for batch in cut]) and not desk.done:
            arrived = await _arrived(rollouts, groups, desk)
            if not arrived.rollouts:
                return
            cut = await desk.take(arrived.rollouts, arrived.wholes)


Graded = tuple[Group, TrainableGroup | Ending]
"""A whole group, and what of it trains or why nothing does."""


@dataclass(slots=True)
class _Arrived:
    rollouts: list[Rollout] = field(default_factory=list)
    wholes: list[Graded] = field(default_factory=list)
    """Groups that they made whole."""

    def must_go_on(self, places_left: int) -> bool:
        """Whether somebody waits for them: a group is to be replaced, or the step is full."""
        trainable = sum(isinstance(verdict, TrainableGroup) for _, verdict in self.wholes)
        return trainable < len(self.wholes) or trainable >= places_left


async def _arrived(rollouts: MemoryObjectReceiveStream[Rollout], groups: GroupTable, desk: Desk) -> _Arrived:
    """A rollout and those that come with it, or none."""
    arrived = _Arrived()

    def add(rollout: Rollout) -> None:
        arrived.rollouts.append(rollout)
        if (whole := groups.add(rollout)) is not None:
            arrived.wholes.append((whole, desk.grading.apply(whole)))

    with suppress(anyio.EndOfStream):
        add(await rollouts.receive())
        with anyio.move_on_after(GATHER_S):
            while not arrived.must_go_on(desk.cutter.places_left):
                add(await rollouts.receive())
    for rollout in offered(rollouts):
        add(rollout)
    return arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """What became of a group, and of the step that it was tried for."""

    group: Group
    verdict: TrainableGroup | Ending
    step: int
    replaced: bool
    """Whether another one is sampled for it."""
    swept: Mapping[int, Ending]
    """Groups that the step may not train on after all, now that it would be full."""
    fruitless: Batch | None
    """A batch of nothing but failures."""
    batches: Sequence[Batch]

    @property
    def judged(self) -> Judged:
        if isinstance(self.verdict, Ending):
            return Judged(group=self.group, ending=self.verdict, step=self.step)
        return Judged(group=self.group)


@dataclass(slots=True, kw_only=True)
class Desk:
    """Where whole groups are judged, given their place, and written down."""

    grading: GradingRule
    cutter: BatchCutter
    permits: Permits
    trajectories: Trajectories
    dispatch: Dispatch
    last_step: int

    @property
    def done(self) -> bool:
        """Whether the last step's batch is cut."""
        return self.cutter.step > self.last_step

    def cut(self) -> list[Batch]:
        """Batches that are full: what was dropped before a restart may have filled several."""
        batches: list[Batch] = []
        while not self.done and (batch := self.cutter.cut()) is not None:
            batches.append(batch)
        return batches

    async def take(self, rollouts: Sequence[Rollout], wholes: Sequence[Graded]) -> list[Batch]:
        """Write *rollouts* and the groups that are whole; the batches that are full by now.

        Raises:
            RunFailed, ServiceUnreachable: no group could be graded, several times in a row.
        """
        # Those that are left after the last step wait for a run of more steps.
        placed = [self._place(group, verdict) for group, verdict in wholes if not self.done]
        judged = {one.group.number for one in placed}
        graded = [one for one in rollouts if one.reward is not None and one.ticket.group not in judged]
        await self.trajectories.keep(graded, groups=[one.judged for one in placed])
        for one in placed:
            await self._follow(one)
        return [batch for one in placed for batch in one.batches]

    def _place(self, group: Group, verdict: TrainableGroup | Ending) -> _Placed:
        step, replaced = self.cutter.step, False
        self.cutter.saw(group)
        if isinstance(verdict, Ending):
            replaced = self.cutter.drop(group.number, verdict)
        else:
            self.cutter.keep(verdict)
        swept, batch = self.cutter.sweep(), self.cutter.cut()
        fruitless = batch if batch and not batch.groups and set(batch.dropped) == {Ending.FAILED} else None
        if fruitless is not None:
            # An outage costs no step.
            self.cutter.redo()
        return _Placed(
            group=group,
            verdict=verdict,
            step=step,
            replaced=replaced,
            swept=swept,
            fruitless=fruitless,
            batches=[batch, *self.cut()] if batch and not fruitless else [],
        )

    async def _follow(self, placed: _Placed) -> None:
        """Tell whom it concerns, now that it is written."""
        group = placed.group
        if isinstance(placed.verdict, Ending):
            self._dropped(group.number, placed.verdict, placed.step, replaced=placed.replaced)
        else:
            for rollout, reason in self.grading.left_out(group):
                log.info("member.dropped", group=group.number, member=rollout.ticket.member, reason=reason)
        for number, ending in placed.swept.items():
            await self.trajectories.end(number, ending=ending, step=placed.step)
            self._dropped(number, ending, placed.step, replaced=True)
        if placed.fruitless is not None:
            self.dispatch.batch_was_fruitless(placed.fruitless.step, group)
            self.permits.give_back(placed.fruitless.holders, reason="dropped")
        elif placed.batches:
            self.dispatch.batch_was_fruitful()

    def _dropped(self, number: int, ending: Ending, step: int, *, replaced: bool) -> None:
        # Expected by the dozen, unlike the other endings.
        tell = log.debug if ending is Ending.NO_SPREAD else log.info
        tell("group.dropped", group=number, step=step, reason=ending, replaced=replaced)
        if replaced:
            self.permits.give_back([number], reason="dropped")
