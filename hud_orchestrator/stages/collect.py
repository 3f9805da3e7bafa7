"""Rollouts become groups, groups become batches; what does not train ends here, with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hud_orchestrator.errors import RunFailed, ServiceUnreachable
from hud_orchestrator.feedback import Permits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Batch, Ending, Group, Outcome, Rollout
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.streams import offer

FRUITLESS_TRIES = 3
"""Times in a row that every single group tried for a step may fail, before the run gives up."""

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
        for group in waiting:
            log.info("group.readmitted", group=group.number)
            batch = await desk.place(group, written=True)
            if batch is not None and (not await offer(batches, batch) or batch.step == last_step):
                return
        async for rollout in rollouts:
            whole = groups.add(rollout)
            batch = None if whole is None else await desk.place(whole, written=False)
            if batch is not None and (not await offer(batches, batch) or batch.step == last_step):
                return


@dataclass(slots=True, kw_only=True)
class Desk:
    """Where a whole group is judged, written down and given its place."""

    grading: GradingRule
    cutter: BatchCutter
    permits: Permits
    trajectories: Trajectories
    fruitless: int = 0

    async def place(self, group: Group, *, written: bool) -> Batch | None:
        """Judge *group*; the batch that is now full, if one is."""
        verdict = self.grading.apply(group)
        ending = verdict if isinstance(verdict, Ending) else None
        step = self.cutter.step if ending else None
        if not written:
            await self.trajectories.add(group, ending=ending, step=step)
        elif ending:
            await self.trajectories.end(group.number, ending=ending, step=step)
        self.cutter.saw(group)
        if isinstance(verdict, Ending):
            self._drop(group.number, verdict)
        else:
            self.cutter.keep(verdict)
            for rollout, reason in self.grading.left_out(group):
                log.info("member.dropped", group=group.number, member=rollout.ticket.member, reason=reason)
        await self._sweep()
        batch = self.cutter.cut()
        if batch is not None and not batch.groups and set(batch.dropped) == {Ending.FAILED}:
            self._try_again(batch, group)
            return None
        self.fruitless = 0 if batch is not None else self.fruitless
        return batch

    def _drop(self, number: int, ending: Ending) -> None:
        replaced = self.cutter.drop(ending)
        # Expected by the dozen, unlike the other endings.
        tell = log.debug if ending is Ending.NO_SPREAD else log.info
        tell("group.dropped", group=number, step=self.cutter.step, reason=ending, replaced=replaced)
        if replaced:
            self.permits.give_back(1, reason="dropped")

    async def _sweep(self) -> None:
        for group in self.cutter.sweep():
            await self.trajectories.end(group.number, ending=Ending.STALE, step=self.cutter.step)
            log.info(
                "group.dropped", group=group.number, step=self.cutter.step, reason=Ending.STALE, replaced=True
            )
            self.permits.give_back(1, reason="dropped")

    def _try_again(self, batch: Batch, last: Group) -> None:
        """Let an outage cost no step; give up when it lasts."""
        self.fruitless += 1
        if self.fruitless == FRUITLESS_TRIES:
            reason = next((rollout.detail for rollout in last.rollouts if rollout.detail), "no detail")
            text = (
                f"every group failed in {self.fruitless} tries at step {batch.step}, "
                f"the last with: {reason}; mend the environment or the gateway and run again"
            )
            away = all(rollout.outcome is Outcome.GATEWAY_FAILED for rollout in last.rollouts)
            raise ServiceUnreachable(text) if away else RunFailed(text)
        self.cutter.redo()
        self.permits.give_back(batch.permits, reason="dropped")
