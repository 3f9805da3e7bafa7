"""What has accumulated since the last step: gradients, and the facts that its checkpoint will tell."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hud_orchestrator.local.datums import Batch
from hud_orchestrator.local.gradient import Gradient
from hud_orchestrator.local.weights import Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An immutable sum over calls; empty after a step, a new head or a restart."""

    gradients: Tensors = field(default_factory=dict)
    """By parameter name, fp32. Empty: there is nothing to step on."""
    rewards: tuple[float, ...] = ()
    num_datums: int = 0
    num_tokens: int = 0
    losses: tuple[str, ...] = ()
    """Names of the losses used, each once, in order of first use."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the latest call."""

    def plus(self, batch: Batch, gradient: Gradient, told: Mapping[str, float]) -> Pending:
        """With one more call's gradient. What the client *told* about it goes before what we know."""
        metrics = {**gradient.tally.metrics(), **batch_metrics(batch), **told}
        return Pending(
            gradients=_add(self.gradients, gradient.tensors),
            rewards=(*self.rewards, *batch.rewards),
            num_datums=self.num_datums + len(batch.datums),
            num_tokens=self.num_tokens + num_actions(batch),
            losses=tuple(dict.fromkeys([*self.losses, batch.loss.name])),
            metrics=metrics,
        )

    def facts(self) -> dict[str, float]:
        """Metrics of the checkpoint that a step on this makes."""
        if not self.rewards:
            return {}
        return {
            **self.metrics,
            "reward_mean": statistics.fmean(self.rewards),
            "reward_std": statistics.pstdev(self.rewards),
            "reward_min": min(self.rewards),
            "reward_max": max(self.rewards),
        }


def batch_metrics(batch: Batch) -> dict[str, float]:
    """Metrics of a batch that need no model.

    Rewards are as sent; ``tokens`` counts every action token; ``added`` counts the datums that could
    add something to the gradient, so at 0 the call was accepted and added nothing.
    """
    flat = batch.groups_without_spread
    return {
        "reward_mean": statistics.fmean(batch.rewards),
        "reward_std": statistics.pstdev(batch.rewards),
        "tokens": float(num_actions(batch)),
        "added": float(len(batch.credited)),
        **({} if flat is None else {"groups_without_spread": float(flat)}),
    }


def num_actions(batch: Batch) -> int:
    """Action tokens of a batch."""
    return sum(len(datum.output) for datum in batch.datums)


def _add(left: Tensors, right: Tensors) -> dict[str, Tensor]:
    total = dict(left)
    for name, gradient in right.items():
        total[name] = total[name] + gradient if name in total else gradient
    return total
