"""From the rewards of a batch to one advantage per trajectory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

STD_FLOOR = 1e-6
"""Added to a group's deviation before dividing by it; in units of reward."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """How much better each trajectory is than its group."""

    values: list[float]
    """One per trajectory, in units of (scaled) reward, or of deviations. Exactly 0 in a group
    without spread."""
    groups_without_spread: int
    """Groups whose members all got the same reward; they teach nothing."""


def group_advantages(
    rewards: Sequence[float], *, group_size: int | None, scale: float, divide_by_std: bool
) -> Advantages:
    """Centre scaled rewards on the mean of their group.

    Args:
        rewards: one per trajectory; groups are contiguous slices.
        group_size: members per group, a divisor of ``len(rewards)``; ``None``: all are one group.
        scale: every reward is multiplied by this first.
        divide_by_std: also divide by the group's deviation (of a population, plus 1e-6).

    Source:
        Group-relative advantages of Shao et al., arXiv:2402.03300. Centred only by default, as in the
        contract; the division is the paper's.
    """
    size = group_size or len(rewards)
    values: list[float] = []
    flat = 0
    for start in range(0, len(rewards), size):
        group = [reward * scale for reward in rewards[start : start + size]]
        # Compared, not subtracted: the mean of equal floats need not equal them.
        if max(group) == min(group):
            flat += 1
            values += [0.0] * len(group)
            continue
        mean = statistics.fmean(group)
        divisor = statistics.pstdev(group) + STD_FLOOR if divide_by_std else 1.0
        values += [(reward - mean) / divisor for reward in group]
    return Advantages(values=values, groups_without_spread=flat)
