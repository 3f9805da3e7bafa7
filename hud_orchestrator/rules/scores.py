"""What a set of attempts scored: in all, by subscore, by column and by task.

A failure is not a low reward: attempts without a grade are counted, with the way they ended, and are in no
mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hud_orchestrator.records import Outcome, Rollout
from hud_orchestrator.rules.statistics import Estimate, clustered_mean, pass_at_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One policy's attempts, summed up."""

    attempts: int
    graded: int
    reward: Estimate | None
    """``None`` when nothing was graded."""
    pass_at: Mapping[int, float]
    """By k: the mean of pass@k over the tasks with at least k graded attempts."""
    outcomes: Mapping[Outcome, int]
    failures: Mapping[Outcome, tuple[int, str | None]]
    """By the way they ended: attempts without a grade, and what the last one said."""
    subscores: Mapping[str, Estimate]
    columns: Mapping[str, Mapping[str, Estimate]]
    """Reward by column, and by its value."""
    tasks: Mapping[str, tuple[float, ...]]
    """Rewards of the graded attempts by slug, in member order."""


def scores(rollouts: Sequence[Rollout], *, solved_at: float) -> Scores:
    """Sum up the attempts of one policy; at *solved_at* or above, a reward counts as solved for pass@k."""
    ordered = sorted(rollouts, key=lambda r: (r.ticket.group, r.ticket.member))
    graded = [rollout for rollout in ordered if rollout.reward is not None]
    tasks = {rollout.ticket.task.slug: tuple[float, ...]() for rollout in ordered}
    tasks |= _rewards(graded)
    failed = [rollout for rollout in ordered if rollout.reward is None]
    return Scores(
        attempts=len(ordered),
        graded=len(graded),
        reward=clustered_mean(list(tasks.values())),
        pass_at=_pass_at([rewards for rewards in tasks.values() if rewards], solved_at),
        outcomes=dict(Counter(rollout.outcome for rollout in ordered)),
        failures={
            outcome: (count, next(r.detail for r in reversed(failed) if r.outcome is outcome))
            for outcome, count in Counter(rollout.outcome for rollout in failed).items()
        },
        subscores=_estimates(graded, lambda r: _subscores((r.grade or {}).get("subscores"), "")),
        columns=_columns(graded),
        tasks=tasks,
    )


def difference(scored: Scores, other: Scores) -> Estimate | None:
    """How much better *scored* did than *other* at the tasks that both have grades for, task by task.

    Paired: what both find easy or hard cancels out, so the interval is narrower than those of the means.
    """
    both = [slug for slug, rewards in scored.tasks.items() if rewards and other.tasks.get(slug)]
    return clustered_mean([[_mean(scored.tasks[slug]) - _mean(other.tasks[slug])] for slug in both])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _rewards(graded: Iterable[Rollout]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for rollout in graded:
        assert rollout.reward is not None  # graded
        found.setdefault(rollout.ticket.task.slug, []).append(rollout.reward)
    return {slug: tuple(rewards) for slug, rewards in found.items()}


def _pass_at(tasks: Sequence[Sequence[float]], solved_at: float) -> dict[int, float]:
    most = max(map(len, tasks), default=0)
    wanted = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most} - {0})
    solved = [(len(rewards), sum(reward >= solved_at for reward in rewards)) for rewards in tasks]
    return {k: _mean([pass_at_k(n, c, k) for n, c in solved if n >= k]) for k in wanted}


def _columns(graded: Sequence[Rollout]) -> dict[str, dict[str, Estimate]]:
    names = dict.fromkeys(name for rollout in graded for name in rollout.ticket.task.columns)

    def of(name: str, rollout: Rollout) -> Iterator[tuple[str, float]]:
        columns = rollout.ticket.task.columns
        if name in columns and rollout.reward is not None:
            yield str(columns[name]), rollout.reward

    return {name: _estimates(graded, partial(of, name)) for name in names}


def _estimates(
    graded: Sequence[Rollout], of: Callable[[Rollout], Iterable[tuple[str, float]]]
) -> dict[str, Estimate]:
    """The mean of every name that *of* finds, with the values of each task together."""
    found: dict[str, dict[str, list[float]]] = {}
    for rollout in graded:
        for name, value in of(rollout):
            found.setdefault(name, {}).setdefault(rollout.ticket.task.slug, []).append(value)
    means = {name: clustered_mean(list(by_task.values())) for name, by_task in found.items()}
    return {name: mean for name, mean in means.items() if mean is not None}


def _subscores(found: Any, above: str) -> Iterator[tuple[str, float]]:
    """Every subscore; those inside another one by the names of both."""
    for one in found or ():
        name = f"{above}{one['name']}"
        yield name, float(one["value"])
        yield from _subscores(one.get("children"), f"{name}/")
