"""Guards that could never fire, or do what they say."""

from __future__ import annotations

from collections.abc import Iterator

from hud_orchestrator.config.findings import Check, Finding, Resolve
from hud_orchestrator.config.guards import CONDITIONS, GuardSection
from hud_orchestrator.config.run import RunFile

_OFF_POLICY = ("kl", "ratio_max", "clipped_share")
"""Figures that compare the policy with the one that sampled, which ``cross_entropy`` does not."""

_BELONGS = {
    "steps": ("roll_back",),
    "most": ("roll_back",),
    "factor": ("lower_learning_rate", "roll_back"),
    "floor": ("lower_learning_rate", "roll_back"),
}
"""Keys, and the actions that look at them."""


def _guards(run: RunFile, _: Resolve) -> Iterator[Finding]:
    names: set[str] = set()
    for place, guard in enumerate(run.guards):
        key = f"guards.{place}"
        yield from _one(run, guard, key)
        if guard.label in names:
            text = f'"{guard.label}" is the name of two guards; give one of them another'
            yield Finding((f"{key}.name", key), text)
        names.add(guard.label)


def _one(run: RunFile, guard: GuardSection, key: str) -> Iterator[Finding]:
    if len(guard.conditions) != 1:
        given = f"{' and '.join(guard.conditions)} are given" if guard.conditions else "there is no condition"
        yield Finding((key,), f"{given}; give one of {', '.join(CONDITIONS)}")
    if guard.metric == "eval.reward" and not run.taskset.evaluates:
        yield Finding(
            (f"{key}.metric", "taskset.heldout"),
            "eval.reward needs evaluations: set taskset.heldout or taskset.heldout_split",
        )
    if guard.metric in _OFF_POLICY and run.trainer.loss == "cross_entropy":
        yield Finding(
            (f"{key}.metric", "trainer.loss"),
            f"{guard.metric} is not a figure of trainer.loss: cross_entropy, which does not compare policies",
        )
    if guard.rearm is not None and (wrong := _does_not_rearm(guard, guard.rearm)) is not None:
        yield Finding((f"{key}.rearm",), wrong)
    for name, actions in _BELONGS.items():
        if name in guard.model_fields_set and guard.action not in actions:
            text = f"has no meaning with action: {guard.action}; it belongs to {' and '.join(actions)}"
            yield Finding((f"{key}.{name}", f"{key}.action"), text)
    if guard.floor > run.trainer.learning_rate.peak:
        yield Finding(
            (f"{key}.floor", "trainer.learning_rate.peak"),
            f"{guard.floor:g} is above trainer.learning_rate.peak ({run.trainer.learning_rate.peak:g})",
        )


def _does_not_rearm(guard: GuardSection, rearm: float) -> str | None:
    if guard.not_finite:
        return "has no meaning with not_finite"
    if guard.above is not None and rearm > guard.above:
        return f"{rearm:g} is over above ({guard.above:g}); the figure has to come back to it from there"
    if guard.below is not None and rearm < guard.below:
        return f"{rearm:g} is under below ({guard.below:g}); the figure has to come back to it from there"
    if guard.falls_below_best is not None and not 0 <= rearm < guard.falls_below_best:
        return f"{rearm:g} is not from 0 to less than falls_below_best ({guard.falls_below_best:g})"
    return None


GUARD_CHECKS: tuple[Check, ...] = (_guards,)
"""Checks of guards."""
