"""The clipped objective that several losses share."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clipped_objective(
    moved: Tensor, advantages: Tensor, *, eps_low: float, eps_high: float, dual_clip: float | None = None
) -> Tensor:
    """The worse of the plain and the clipped objective, and not worse than the dual clip.

    ::

        r = exp(moved)
        J = min(r * A, clip(r, 1 - eps_low, 1 + eps_high) * A)         A >= 0, or no dual clip
        J = max(min(r * A, clip(...) * A), dual_clip * A)              A < 0

    It is computed as ``A * exp(clamp(moved))``, clamping at the bound that acts for the sign of A.
    That is the same value and gradient, and a clipped token stays finite however far it has moved,
    where ``min(inf * A, ...)`` would have the gradient ``0 * inf``.

    Args:
        moved: log pi - log q, in nats. Any shape.
        advantages: in units of reward. Shape of *moved*.
        eps_low: how far below 1 the ratio may fall where A < 0.
        eps_high: how far above 1 it may rise where A >= 0.
        dual_clip: largest ratio where A < 0; ``None``: unbounded there.

    Returns:
        In units of reward, to be maximised. Shape of *moved*.
    """
    low = math.log1p(-eps_low) if eps_low < 1 else -math.inf
    worst = math.log(dual_clip) if dual_clip is not None else math.inf
    negative = advantages < 0
    least = torch.full_like(advantages, -math.inf).masked_fill(negative, low)
    most = torch.full_like(advantages, math.log1p(eps_high)).masked_fill(negative, worst)
    return advantages * moved.clamp(least, most).exp()


def outside(moved: Tensor, *, eps_low: float, eps_high: float) -> Tensor:
    """Whether ``exp(moved)`` is outside ``[1 - eps_low, 1 + eps_high]``. Bool, in the shape of *moved*."""
    ratio = moved.detach().exp()
    return (ratio < 1 - eps_low) | (ratio > 1 + eps_high)
