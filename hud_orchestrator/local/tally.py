"""Sums over the action tokens of a call, and the metrics made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Tally:
    """What the micro-batches of one call add up to."""

    comparable: bool
    """Whether all tokens came with a sampling log-probability."""
    loss: float = 0.0
    tokens: int = 0
    """Action tokens that were computed with."""
    entropy: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    ratio_max: float = 0.0

    def add(self, loss: Tensor, entropies: Tensor) -> None:
        """Count a micro-batch: its loss, and the policy's entropy at each action in nats, shape [N]."""
        self.loss += float(loss)
        self.tokens += len(entropies)
        self.entropy += float(entropies.sum())

    def compare(self, logprobs: Tensor, sampling_logprobs: Tensor, config: Mapping[str, float]) -> None:
        """Count how far the policy has moved since sampling. Both of shape [N], in nats."""
        if not self.comparable:
            return
        moved = logprobs - sampling_logprobs
        ratio = moved.exp()
        low, high = config.get("clip_low_threshold", 0.0), config.get("clip_high_threshold", math.inf)
        for name, values in (
            ("ratio_mean", ratio),
            ("clipped_share", ((ratio < low) | (ratio > high)).float()),
            ("kl_k1", -moved),
            ("kl_k3", ratio - 1 - moved),
            ("sampling_logprob_mean", sampling_logprobs),
        ):
            self.sums[name] = self.sums.get(name, 0.0) + float(values.sum(dtype=torch.float64))
        self.ratio_max = max(self.ratio_max, float(ratio.max()))

    def metrics(self) -> dict[str, float]:
        """Finite numbers by name; what was not measured is left out.

        ``loss:sum`` is the call's loss. Means are over the tokens that were computed with, which
        leaves out turns without credit: ``entropy`` of the policy in nats; ``ratio_mean``,
        ``ratio_max`` of pi / q; ``clipped_share`` outside the loss's bounds, 0 to 1; ``kl_k1`` and
        ``kl_k3``, two estimates of KL(q || pi) in nats (Schulman, "Approximating KL divergence").
        """
        metrics = {"loss:sum": self.loss}
        if self.tokens:
            metrics["entropy"] = self.entropy / self.tokens
        if self.tokens and self.comparable:
            metrics |= {name: total / self.tokens for name, total in self.sums.items()}
            metrics["ratio_max"] = self.ratio_max
        return {name: value for name, value in metrics.items() if math.isfinite(value)}
