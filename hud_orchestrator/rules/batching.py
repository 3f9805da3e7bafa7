"""When a batch is cut, and what is swept out of it first.

A step has G places. A trainable group takes one. A group that ends untrained is sampled anew while
the step has replacements left; after that it takes a place too, so that a taskset which the policy
always or never solves yields smaller batches and not an endless search.

The sweep at the cut is what bounds age: permits alone let a slow group be overtaken for ever. Batch n
trains on top of policy version n - 1, so a group whose oldest turn is from version v is n - 1 - v
steps old by then, whenever the cut happens. What a policy sampled that the run has gone back from is
swept out whatever its age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hud_orchestrator.records import ABANDONED, Batch, Dropped, Ending, Group, Outcome, TrainableGroup


class BatchCutter:
    """Fills the places of one step after the other."""

    def __init__(
        self,
        *,
        next_step: int,
        groups_per_step: int,
        replacements: int,
        staleness: int,
        dropped: Mapping[int, Sequence[Dropped]] | None = None,
    ) -> None:
        """Begin with *next_step*.

        Args:
            next_step: its number.
            groups_per_step: places of a step.
            replacements: groups of a step that are sampled anew when they end untrained.
            staleness: steps that a group may be behind.
            dropped: what was tried for steps before a restart, by the step; it counts as if it had been now.
                The run file may have grown smaller since: later steps then keep what there is room for.
        """
        most = replacements + groups_per_step
        self._before = {
            step: groups if step == next_step else groups[:most]
            for step, groups in (dropped or {}).items()
            if step <= next_step + staleness
        }
        self._recalled: Sequence[Dropped] = ()
        self.wasted_before = frozenset(
            group.number for groups in self._before.values() for group in groups[replacements:]
        )
        """Those of them that took a place for good, and so hold a permit."""
        self._step = next_step
        self._places = groups_per_step
        self._replacements = replacements
        self._staleness = staleness
        self._kept: list[TrainableGroup] = []
        self._dropped: Counter[Ending] = Counter()
        self._rewards: list[tuple[int, float]] = []
        self._outcomes: Counter[Outcome] = Counter()
        self._replaced = 0
        self._wasted: list[int] = []
        self._recall()

    @property
    def step(self) -> int:
        """The step that is being filled, counted from 1."""
        return self._step

    @property
    def places_left(self) -> int:
        """How many of the step's places are not taken."""
        return self._places - len(self._kept) - len(self._wasted)

    def keep(self, group: TrainableGroup) -> None:
        """Give a place to a group that trains."""
        self._kept.append(group)

    def drop(self, group: int, ending: Ending) -> bool:
        """Count a group that ended untrained; whether it is sampled anew."""
        self._dropped[ending] += 1
        if self._replaced < self._replacements:
            self._replaced += 1
            return True
        self._wasted.append(group)
        return False

    def saw(self, group: Group) -> None:
        """Count a group's rewards and outcomes, whatever becomes of it."""
        self._outcomes.update(rollout.outcome for rollout in group.rollouts)
        self._rewards += [(group.number, r.reward) for r in group.rollouts if r.reward is not None]

    def sweep(self) -> dict[int, Ending]:
        """Take out the groups that this step may not train on, once the places are full: numbers and why."""
        if not self._full:
            return {}
        swept = {g.number: ending for g in self._kept if (ending := self._objection(g)) is not None}
        self._kept = [g for g in self._kept if g.number not in swept]
        self._dropped.update(swept.values())
        return swept

    def _objection(self, group: TrainableGroup) -> Ending | None:
        if group.oldest_version == ABANDONED:
            return Ending.ROLLED_BACK
        return Ending.STALE if self._step - 1 - group.oldest_version > self._staleness else None

    def cut(self) -> Batch | None:
        """The batch, in group order whatever the order of arrival, once every place is taken."""
        if not self._full:
            return None
        batch = Batch(
            step=self._step,
            groups=tuple(sorted(self._kept, key=lambda g: g.number)),
            dropped=+self._dropped,
            rewards=tuple(reward for _, reward in sorted(self._rewards)),
            outcomes=dict(self._outcomes),
            # More than there are places, when those of an earlier life were more: they are held all the same.
            holders=(*(group.number for group in self._kept), *self._wasted),
        )
        self._step += 1
        self._begin()
        return batch

    def redo(self) -> None:
        """Fill the places of the step that was just cut once more: nothing came of it."""
        # What was tried for the step after waits for it.
        self._before[self._step] = self._recalled
        self._step -= 1
        self._begin()

    @property
    def _full(self) -> bool:
        return self.places_left <= 0

    def _begin(self) -> None:
        self._kept = []
        self._dropped = Counter()
        self._rewards = []
        self._outcomes = Counter()
        self._replaced = 0
        self._wasted = []
        self._recall()

    def _recall(self) -> None:
        self._recalled = self._before.pop(self._step, ())
        for group in self._recalled:
            self._outcomes.update(group.outcomes)
            self._rewards += [(group.number, reward) for reward in group.rewards]
            self.drop(group.number, group.ending)
