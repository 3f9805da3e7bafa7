"""Check the settings that client-side losses share, by name: one name means one thing everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from hud_orchestrator.losses.client.advantages import KINDS
from hud_orchestrator.losses.client.kl import ESTIMATORS

RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "eps_low": (lambda x: 0 <= x <= 1, "from 0 to 1: how far below 1 the ratio pi / q may be"),
    "eps_high": (lambda x: x >= 0, "0 or more: how far above 1 the ratio pi / q may be"),
    "clip_low_threshold": (lambda x: x >= 0, "0 or more: a bound of the ratio pi / q itself"),
    "clip_high_threshold": (lambda x: x > 0, "above 0: a bound of the ratio pi / q itself"),
    "mask_below": (lambda x: x >= 0, "0 or more: a bound of the ratio pi / q itself"),
    "mask_above": (lambda x: x > 0, "above 0: a bound of the ratio pi / q itself"),
    "ratio_cap": (lambda x: x > 0, "above 0: the largest weight pi / q"),
    "dual_clip": (lambda x: x > 1, "above 1: the largest ratio pi / q of a token with negative advantage"),
    "beta": (lambda x: x > 0, "above 0: reward per nat"),
    "max_tokens": (lambda x: x > 0, "above 0: tokens"),
    "kl": (lambda x: x >= 0, "0 or more: reward per nat"),
}
"""What a number must be, and its meaning."""

CHOICES: Mapping[str, tuple[str, ...]] = {"advantage": tuple(KINDS), "kl_estimator": tuple(ESTIMATORS)}
"""What a word must be one of."""

ORDERED = (("clip_low_threshold", "clip_high_threshold"), ("mask_below", "mask_above"))
"""The first must not exceed the second."""


def check(**settings: object) -> None:
    """Check the values of settings that are known by name; the rest is the caller's.

    Raises:
        ValueError: a number is not finite or out of its range, a word is not one of its choices, or a
            lower bound exceeds its upper one.
    """
    for name, value in settings.items():
        if name in RANGES:
            _check_number(name, value)
        elif name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}, got {value!r}")
    for low, high in ORDERED:
        if low in settings and settings[low] > settings[high]:  # type: ignore[operator]
            raise ValueError(f"{low} ({settings[low]}) must not exceed {high} ({settings[high]})")


def _check_number(name: str, value: object) -> None:
    if value is None and name == "dual_clip":
        return
    within, text = RANGES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not within(value):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a finite number, {text}; got {value!r}")
