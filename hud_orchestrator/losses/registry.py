"""The losses built into the embedded service, by the names of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hud_orchestrator.losses.cispo import cispo
from hud_orchestrator.losses.cross_entropy import cross_entropy
from hud_orchestrator.losses.dro import dro
from hud_orchestrator.losses.importance_sampling import importance_sampling
from hud_orchestrator.losses.ppo import ppo
from hud_orchestrator.losses.signature import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A loss, and what a request has to bring for it."""

    name: str
    compute: Loss
    defaults: Mapping[str, float] = field(default_factory=dict)
    """Every key of its configuration, with the value it has when left out."""
    off_policy: bool = True
    """Whether it compares with the sampling policy and weighs by advantage."""

    def configure(self, given: Mapping[str, float]) -> dict[str, float]:
        """The whole configuration: what was *given*, and defaults for the rest.

        Raises:
            ValueError: a key is unknown, a value is not a finite number, or bounds are crossed.
        """
        for key, value in given.items():
            if key not in self.defaults:
                allowed = ", ".join(sorted(self.defaults)) or "none"
                raise ValueError(f"loss {self.name!r} has no key {key!r}; it knows: {allowed}")
            if not math.isfinite(value):
                raise ValueError(f"{key} must be a finite number, got {value}")
        config = {**self.defaults, **given}
        low, high = config.get("clip_low_threshold", 0.0), config.get("clip_high_threshold", math.inf)
        if not 0 <= low <= high:
            raise ValueError(
                f"clip_low_threshold ({low}) and clip_high_threshold ({high}) need 0 <= low <= high"
            )
        if config.get("beta", 1.0) <= 0:
            raise ValueError(f"beta must be above 0, got {config['beta']}")
        return config


BUILT_IN: Mapping[str, BuiltIn] = {
    loss.name: loss
    for loss in (
        BuiltIn(name="importance_sampling", compute=importance_sampling),
        BuiltIn(name="ppo", compute=ppo, defaults={"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
        BuiltIn(
            name="cispo", compute=cispo, defaults={"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}
        ),
        BuiltIn(name="dro", compute=dro, defaults={"beta": 0.05}),
        BuiltIn(name="cross_entropy", compute=cross_entropy, off_policy=False),
    )
}
"""Every built-in loss by name, in the order that ``GET .../losses`` lists them."""
