"""Rollouts become groups, groups become batches; what does not train ends here, with a reason.

A graded rollout is written down before anything else becomes of it, so that a kill costs the attempts in
flight and those of the last few milliseconds. Rollouts that arrive together share a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.feedback import Permits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Batch, Ending, Group, Rollout
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.streams import offer, offered

GATHER_S = 0.005
"""Seconds that a rollout waits for others to be written with: a transaction costs more than its rows."""

log = get_logger()


async def collect(
    rollouts: MemoryObjectReceiveStream[Rollout],
    batches: MemoryObjectSendStream[Batch],
    *,
    groups: GroupTable,
    desk: Desk,
    waiting: Sequence[Group],
    last_step: int,
) -> None:
    """Cut batches up to the last step's. Groups in *waiting* were sampled before a restart.

    Raises:
        RunFailed, ServiceUnreachable: no group could be graded, several times in a row.
    """
    async with rollouts, batches:
        if not await _go_on(batches, desk.cutter.cut(), desk.cutter, last_step=last_step):
            return
        for group in waiting:
            if not await _go_on(batches, await desk.place(group), desk.cutter, last_step=last_step):
                return
        async for rollout in rollouts:
            first = groups.add(rollout)
            if first is None:
                await anyio.sleep(GATHER_S)
            arrived = offered(rollouts)
            others = [known for one in arrived if (known := groups.add(one)) is not None]
            wholes = [first, *others] if first is not None else others
            await desk.keep([rollout, *arrived], but_for=wholes[:1])
            for whole in wholes:
                if not await _go_on(batches, await desk.place(whole), desk.cutter, last_step=last_step):
                    return


async def _go_on(
    batches: MemoryObjectSendStream[Batch], batch: Batch | None, cutter: BatchCutter, *, last_step: int
) -> bool:
    """Hand *batch* on, if there is one; whether another one is wanted."""
    while batch is not None:
        if not await offer(batches, batch) or batch.step == last_step:
            return False
        # What was dropped before a restart may have taken every place of the next step, too.
        batch = cutter.cut()
    return True


@dataclass(slots=True, kw_only=True)
class Desk:
    """Where a whole group is judged, written down and given its place."""

    grading: GradingRule
    cutter: BatchCutter
    permits: Permits
    trajectories: Trajectories
    dispatch: Dispatch

    async def keep(self, rollouts: Sequence[Rollout], *, but_for: Sequence[Group]) -> None:
        """Write graded rollouts, but for those of a group that is placed next, which writes them too."""
        next_to_come = {group.number for group in but_for}
        await self.trajectories.keep(
            [one for one in rollouts if one.reward is not None and one.ticket.group not in next_to_come]
        )

    async def place(self, group: Group) -> Batch | None:
        """Judge *group*; the batch that is now full, if one is."""
        verdict = self.grading.apply(group)
        ending = verdict if isinstance(verdict, Ending) else None
        step = self.cutter.step if ending else None
        await self.trajectories.add(group, ending=ending, step=step)
        self.cutter.saw(group)
        if isinstance(verdict, Ending):
            self._drop(group.number, verdict)
        else:
            self.cutter.keep(verdict)
            for rollout, reason in self.grading.left_out(group):
                log.info("member.dropped", group=group.number, member=rollout.ticket.member, reason=reason)
        await self._sweep()
        batch = self.cutter.cut()
        if batch is None:
            return None
        if not batch.groups and set(batch.dropped) == {Ending.FAILED}:
            # An outage costs no step.
            self.dispatch.batch_was_fruitless(batch.step, group)
            self.cutter.redo()
            self.permits.give_back(batch.permits, reason="dropped")
            return None
        self.dispatch.batch_was_fruitful()
        return batch

    def _drop(self, number: int, ending: Ending) -> None:
        replaced = self.cutter.drop(ending)
        # Expected by the dozen, unlike the other endings.
        tell = log.debug if ending is Ending.NO_SPREAD else log.info
        tell("group.dropped", group=number, step=self.cutter.step, reason=ending, replaced=replaced)
        if replaced:
            self.permits.give_back(1, reason="dropped")

    async def _sweep(self) -> None:
        for number, ending in self.cutter.sweep().items():
            await self.trajectories.end(number, ending=ending, step=self.cutter.step)
            log.info("group.dropped", group=number, step=self.cutter.step, reason=ending, replaced=True)
            self.permits.give_back(1, reason="dropped")
