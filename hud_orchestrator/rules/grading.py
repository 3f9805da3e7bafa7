"""What of a group trains: a treatment for every way an attempt can end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from hud_orchestrator.records import Ending, Group, Member, Outcome, Rollout, TrainableGroup, Treatment

SPREAD_TOLERANCE = 1e-9
"""Rewards closer than this are the same: the advantage would be rounding noise."""

DROPPING = frozenset({Treatment.DROP_GROUP, Treatment.RETRY})
"""Treatments of a member that end its whole group; what is still to be retried here has been, in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingRule:
    """How a group's rewards train.

    The baseline, the mean that rewards are compared with, is that of the members which train with a
    reward of their own, kept or scaled. A member without advantage gets exactly this mean as its reward,
    so it moves nobody's advantage; a dropped member is not there at all. A member without tokens is left
    out in any case: there is nothing of it to train on. So is one that was sampled elsewhere and should
    train with another reward than its own: its trace id stands for the reward that the service knows.
    """

    treatments: Mapping[Outcome, Treatment]
    """By outcome; those not in it are kept."""
    scale_by: float
    drop_no_spread: bool

    def apply(self, group: Group) -> TrainableGroup | Ending:
        """What of *group* trains, or why nothing does."""
        treated = [(self._treatment(r), r) for r in group.rollouts]
        for treatment, rollout in treated:
            if treatment in DROPPING:
                return Ending.FAILED if rollout.reward is None else Ending.PARTIAL
            if rollout.reward is None and treatment in (Treatment.KEEP, Treatment.SCALE):
                return Ending.FAILED
        own = [self._reward(t, r) for t, r in treated if self._has_its_own(t) and not self._objection(t, r)]
        if len(own) < min(2, len(group.rollouts)):
            return Ending.NO_TOKENS
        if self.drop_no_spread and max(own) - min(own) <= SPREAD_TOLERANCE:
            return Ending.NO_SPREAD
        baseline = fmean(own)
        members = tuple(
            Member(rollout=r, reward=self._reward(t, r) if self._has_its_own(t) else baseline)
            for t, r in treated
            if not self._objection(t, r)
        )
        oldest = min(v for m in members if (v := m.rollout.oldest_version) is not None)
        return TrainableGroup(number=group.number, members=members, oldest_version=oldest)

    def left_out(self, group: Group) -> Iterator[tuple[Rollout, str]]:
        """The members that do not train with the rest of their group, each with the reason."""
        for rollout in group.rollouts:
            reason = self._objection(self._treatment(rollout), rollout)
            if reason is not None:
                yield rollout, reason

    def _treatment(self, rollout: Rollout) -> Treatment:
        return self.treatments.get(rollout.outcome, Treatment.KEEP)

    def _objection(self, treatment: Treatment, rollout: Rollout) -> str | None:
        if treatment is Treatment.DROP_MEMBER:
            return f"rollout.outcomes.{rollout.outcome}: {treatment}"
        if not rollout.has_tokens:
            return "there are no tokens of it to train on"
        unchanged = treatment is Treatment.KEEP or (treatment is Treatment.SCALE and self.scale_by == 1)
        if rollout.remote and not unchanged:
            return (
                f"its trace id cannot carry another reward (rollout.outcomes.{rollout.outcome}: {treatment})"
            )
        return None

    def _has_its_own(self, treatment: Treatment) -> bool:
        return treatment in (Treatment.KEEP, Treatment.SCALE)

    def _reward(self, treatment: Treatment, rollout: Rollout) -> float:
        assert rollout.reward is not None  # looked at before
        return rollout.reward * (self.scale_by if treatment is Treatment.SCALE else 1.0)
