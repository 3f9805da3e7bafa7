"""From the rewards of a forward's datums to one advantage per datum."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from hud_orchestrator.losses.client.data import DatumTensors

STD_FLOOR = 1e-6
"""Added to a group's deviation before dividing by it; in units of reward. The service adds the same."""


def datum_advantages(data: Sequence[DatumTensors], *, advantage: str) -> list[float]:
    """How much better each datum's trajectory is than its group.

    A group's statistics are over its *trajectories*: one that took five turns counts once, and each of
    its five datums gets its advantage::

        plain          A_i = r_i
        group          A_i = r_i - mean(r)
        group_std      A_i = (r_i - mean(r)) / (std(r) + 1e-6)           std of a population
        leave_one_out  A_i = r_i - mean of the others' r = G / (G - 1) * (r_i - mean(r))

    In a group whose rewards are all equal, every kind but ``plain`` gives exactly 0.

    Args:
        data: D datums. Their groups are ``group_idx``; ``None`` is a group too, the whole batch when no
            datum has one.
        advantage: one of the four kinds.

    Returns:
        D advantages, in units of reward; of deviations for ``group_std``.

    Raises:
        ValueError: there is no such kind; two datums of one trajectory disagree about its reward or
            group; or a group of one has nobody to leave out.

    Source:
        ``group`` is the contract's. ``group_std``: GRPO, Shao et al., arXiv:2402.03300, without the
        floor. ``leave_one_out``: RLOO, Ahmadian et al., arXiv:2402.14740.
    """
    if advantage not in KINDS:
        raise ValueError(f"advantage must be one of {', '.join(KINDS)}, got {advantage!r}")
    trajectories = _trajectories(data)
    groups: dict[int | None, list[int]] = {}
    for index, (_, group) in trajectories.items():
        groups.setdefault(group, []).append(index)
    values: dict[int, float] = {}
    for group, members in groups.items():
        rewards = [trajectories[index][0] for index in members]
        try:
            values |= zip(members, KINDS[advantage](rewards), strict=True)
        except statistics.StatisticsError:
            raise ValueError(
                f"group {group} has 1 trajectory, and leave_one_out compares it with the others of its "
                'group: use groups of 2 or more, or advantage "group"'
            ) from None
    return [values[datum.traj_idx] for datum in data]


def _trajectories(data: Sequence[DatumTensors]) -> dict[int, tuple[float, int | None]]:
    """Reward and group by ``traj_idx``."""
    found: dict[int, tuple[float, int | None]] = {}
    for number, datum in enumerate(data):
        facts = (float(datum.reward), datum.group_idx)
        known = found.setdefault(datum.traj_idx, facts)
        if known != facts:
            raise ValueError(
                f"datum {number} says that trajectory {datum.traj_idx} has reward {facts[0]} and group "
                f"{facts[1]}, an earlier datum said {known[0]} and {known[1]}"
            )
    return found


def _plain(rewards: Sequence[float]) -> list[float]:
    return list(rewards)


def _group(rewards: Sequence[float]) -> list[float]:
    # Compared, not subtracted: the mean of equal floats need not equal them.
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    return [reward - mean for reward in rewards]


def _group_std(rewards: Sequence[float]) -> list[float]:
    divisor = statistics.pstdev(rewards) + STD_FLOOR
    return [value / divisor for value in _group(rewards)]


def _leave_one_out(rewards: Sequence[float]) -> list[float]:
    if len(rewards) < 2:
        raise statistics.StatisticsError
    return [value * len(rewards) / (len(rewards) - 1) for value in _group(rewards)]


KINDS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "group": _group,
    "group_std": _group_std,
    "leave_one_out": _leave_one_out,
    "plain": _plain,
}
"""From the rewards of a group's trajectories to their advantages, by name."""
