"""What of a group trains: the partial-grade policy, and the objections that end a group untrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hud_orchestrator.records import Ending, Group, Member, Outcome, Rollout, TrainableGroup

SPREAD_TOLERANCE = 1e-9
"""Rewards closer than this are the same: the advantage would be rounding noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingRule:
    """How a group's rewards train.

    A member whose agent was cut short keeps its reward, has it scaled, is masked (left out, so that
    it neither trains nor moves the baseline), or ends its group. A member without tokens is left out
    in any case: there is nothing of it to train on. A member without a grade ends its group, because
    a failure of infrastructure is not a low reward.
    """

    partial: Literal["keep", "scale", "mask", "drop_group"]
    factor: float
    drop_no_spread: bool

    def apply(self, group: Group) -> TrainableGroup | Ending:
        """What of *group* trains, or why nothing does."""
        if not all(rollout.outcome.graded for rollout in group.rollouts):
            return Ending.FAILED
        cut = any(rollout.outcome is Outcome.CUT_SHORT for rollout in group.rollouts)
        if cut and self.partial == "drop_group":
            return Ending.PARTIAL
        members = tuple(member for rollout in group.rollouts if (member := self._member(rollout)) is not None)
        if not members or len(members) < min(2, len(group.rollouts)):
            return Ending.NO_TOKENS
        rewards = [member.reward for member in members]
        if self.drop_no_spread and max(rewards) - min(rewards) <= SPREAD_TOLERANCE:
            return Ending.NO_SPREAD
        oldest = group.oldest_version
        assert oldest is not None  # members have samples
        return TrainableGroup(number=group.number, members=members, oldest_version=oldest)

    def _member(self, rollout: Rollout) -> Member | None:
        assert rollout.reward is not None  # only graded rollouts get here
        if rollout.num_tokens == 0:
            return None
        if rollout.outcome is not Outcome.CUT_SHORT or self.partial == "keep":
            return Member(rollout=rollout, reward=rollout.reward)
        if self.partial == "scale":
            return Member(rollout=rollout, reward=rollout.reward * self.factor)
        return None
