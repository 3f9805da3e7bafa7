"""The learning rate of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A linear warm-up to ``peak``, then constant, linear or cosine towards ``final``."""

    peak: float
    final: float
    warmup_steps: int
    total_steps: int
    shape: Literal["constant", "linear", "cosine"]

    def learning_rate(self, step: int) -> float:
        """The rate of step *step*, counted from 1.

        With w warm-up steps and N in all, step k uses ``peak * k / w`` while k <= w. Afterwards
        ``x = (k - w) / (N - w)`` goes from 0 to 1 and the rate from peak to final: linearly, or as
        ``final + (peak - final) * (1 + cos(pi * x)) / 2``.
        """
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.shape == "constant":
            return self.peak
        x = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        x = min(1.0, x)
        share = 1 - x if self.shape == "linear" else (1 + math.cos(math.pi * x)) / 2
        # The last step must still be a step: a rate of exactly zero is refused by every service.
        return max(self.final + (self.peak - self.final) * share, self.peak * 1e-6)
