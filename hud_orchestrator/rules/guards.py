"""When a guard fires.

A guard looks at one figure, at every step or evaluation that has it. It fires when its condition has held
``in_a_row`` times, and then not again before ``cool_down`` more steps were taken, the figure has come back
to ``rearm`` (hysteresis: what wavers about its bound fires once), and the condition has held ``in_a_row``
times since. All of that is read off what the store keeps, so that a run which was killed counts on, and
fires once for a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hud_orchestrator.records import Action

EVAL_REWARD = "eval.reward"
"""The figure of an evaluation; the others are of steps."""

FIGURES: Mapping[str, tuple[str, ...]] = {
    "reward_mean": ("reward_mean",),
    "reward_std": ("reward_std",),
    "cut_short_share": ("cut_short_share",),
    "failed_share": ("failed_share",),
    "loss": ("loss", "loss:sum"),
    "entropy": ("entropy", "entropy_estimate"),
    "kl": ("kl_k3",),
    "ratio_max": ("ratio_max",),
    "clipped_share": ("clipped_share",),
    "grad_norm": ("grad_norm",),
}
"""What guards call a step's figure, and what losses and services call it."""


NOT_FINITE = ("loss", "grad_norm")
"""Figures that make it impossible to take a step when they are not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRule:
    """What one guard looks at, and what it does. Of the four conditions, one is set."""

    name: str
    metric: str
    above: float | None = None
    below: float | None = None
    falls_below_best: float | None = None
    """Holds for a figure at least so much below the highest one so far."""
    not_finite: bool = False
    in_a_row: int = 1
    cool_down: int = 0
    rearm: float | None = None
    """What the figure has to come back to once the guard has fired; with ``falls_below_best``, so much below
    the best. ``None``: nothing. A rollback from the figure that it fired at has brought it back."""
    action: Action = "warn"
    factor: float = 1.0
    """Of the learning rate, whatever the action is besides."""
    least_scale: float = 0.0
    """What all factors together may not fall below."""
    steps: int | None = None
    """How far to go back; ``None``: to the best checkpoint."""
    most: int = 1
    """Rollbacks by this guard before it pauses the run instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A figure once."""

    step: int
    """The policy version that it is of, or the step."""
    taken: int
    """Steps that the run had taken by then, those it has gone back from included."""
    value: float


def tripped(
    rule: GuardRule, points: Sequence[Point], *, fired_at: int | None, fired_on: int | None = None
) -> str | None:
    """Why *rule* fires for the newest of *points*, or ``None``.

    Args:
        rule: the guard.
        points: every figure of the run's present line, oldest first.
        fired_at: steps taken when it last fired.
        fired_on: the step of the figure that it fired on then.
    """
    recent = points[-rule.in_a_row :]
    if len(recent) < rule.in_a_row:
        return None
    best = max((point.value for point in points if math.isfinite(point.value)), default=-math.inf)
    if fired_at is not None and not (
        recent[0].taken > fired_at
        and recent[-1].taken >= fired_at + rule.cool_down
        and _has_been_back(rule, points, best, fired_at, fired_on)
    ):
        return None
    if not all(_holds(rule, point.value, best) for point in recent):
        return None
    times = f", {rule.in_a_row} times in a row" if rule.in_a_row > 1 else ""
    return f"{rule.metric} {recent[-1].value:.4g} {_told(rule, best)}{times}"


def reach(rule: GuardRule, *, gone_back: int) -> int:
    """Steps behind the head that *rule* may still go back to, with all the rollbacks that it has left.

    Args:
        rule: the guard.
        gone_back: how often it has.
    """
    left = max(0, rule.most - gone_back)
    if rule.steps is None or not left:
        return 0
    # Before it goes back once more, so many steps are taken.
    between = max(rule.cool_down, rule.in_a_row)
    return rule.steps + (left - 1) * max(0, rule.steps - between)


def lowered(scale: float, rule: GuardRule) -> float:
    """What the learning rate is multiplied by after *rule* has fired; *scale* before."""
    return max(scale * rule.factor, min(scale, rule.least_scale))


def figure(metric: str, metrics: Mapping[str, float]) -> float | None:
    """A step's figure, by the name that guards have for it."""
    return next((metrics[name] for name in FIGURES[metric] if name in metrics), None)


def not_finite(told: Mapping[str, float]) -> frozenset[str]:
    """Which figures of a step that cannot be taken may be the reason, by what was *told* of it."""
    known = {name: figure(name, told) for name in NOT_FINITE}
    return frozenset(name for name, value in known.items() if value is None or not math.isfinite(value))


def _holds(rule: GuardRule, value: float, best: float) -> bool:
    if rule.not_finite:
        return not math.isfinite(value)
    if rule.above is not None:
        return value > rule.above
    if rule.below is not None:
        return value < rule.below
    assert rule.falls_below_best is not None  # one of the four is set
    return _at_least(best - value, rule.falls_below_best)


def _at_least(value: float, bound: float) -> bool:
    """Of differences of means, whose last bits say nothing: 0.3 - 0.2 is less than 0.1."""
    return value >= bound or math.isclose(value, bound, rel_tol=1e-9)


def _has_been_back(
    rule: GuardRule, points: Sequence[Point], best: float, fired_at: int, fired_on: int | None
) -> bool:
    """Whether the figure has, by itself or as the run went back from the one that *rule* fired on."""
    there = any(point.step == fired_on and point.taken <= fired_at for point in points)
    gone = fired_on is not None and not there
    return gone or any(_rearms(rule, point.value, best) for point in points if point.taken > fired_at)


def _rearms(rule: GuardRule, value: float, best: float) -> bool:
    if rule.rearm is None:
        return True
    if rule.above is not None:
        return value <= rule.rearm
    if rule.below is not None:
        return value >= rule.rearm
    return value >= best - rule.rearm


def _told(rule: GuardRule, best: float) -> str:
    if rule.not_finite:
        return "is not finite"
    if rule.above is not None:
        return f"is above {rule.above:g}"
    if rule.below is not None:
        return f"is below {rule.below:g}"
    return f"is {rule.falls_below_best:g} or more below the best, {best:.4g}"
