"""Datums for tests of client-side losses: what a forward would say, with ratios of one's choice."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Datum:
    """Has the attributes of a forward's datum and nothing else of ours."""

    reward: float
    traj_idx: int
    group_idx: int | None = None
    logprobs: list[float] = field(default_factory=lambda: [-1.0])
    sampling_logprobs: list[float] = field(default_factory=lambda: [-1.0])
    mask: list[float] = field(default_factory=lambda: [1.0])


def moved(
    ratios: Sequence[float], *, reward: float, traj_idx: int, group_idx: int | None = None, observed: int = 0
) -> Datum:
    """A turn of some observed positions and then one action per ratio pi / q."""
    logprobs = [-0.7 - 0.1 * index for index in range(observed + len(ratios))]
    actions = [logprob - math.log(ratio) for logprob, ratio in zip(logprobs[observed:], ratios, strict=True)]
    return Datum(
        reward=reward,
        traj_idx=traj_idx,
        group_idx=group_idx,
        logprobs=logprobs,
        sampling_logprobs=[0.0] * observed + actions,
        mask=[0.0] * observed + [1.0] * len(ratios),
    )


def random_batch(seed: int = 0, *, spread: float = 0.3) -> list[Datum]:
    """Two groups of three trajectories of one to three turns, with log-ratios of deviation *spread*."""
    rng = random.Random(seed)
    data: list[Datum] = []
    for trajectory in range(6):
        reward = rng.random()
        for _ in range(rng.randint(1, 3)):
            ratios = [math.exp(rng.gauss(0, spread)) for _ in range(rng.randint(1, 6))]
            group, observed = trajectory // 3, rng.randint(0, 3)
            data.append(moved(ratios, reward=reward, traj_idx=trajectory, group_idx=group, observed=observed))
    return data


def leaves_of(data: Sequence[Datum]) -> list[Tensor]:
    """Log-probabilities in double precision."""
    return [torch.tensor(datum.logprobs, dtype=torch.float64).requires_grad_() for datum in data]


def gradient(loss_fn: Callable[..., tuple[Tensor, Any]], data: Sequence[Datum], **settings: Any) -> Tensor:
    """The loss's gradient at the action tokens, datum by datum, in double precision. Shape [N]."""
    leaves = leaves_of(data)
    loss, _ = loss_fn(data, leaves, **settings)
    flat = torch.cat(torch.autograd.grad(loss, leaves))
    mask = torch.tensor([one for datum in data for one in datum.mask])
    assert not flat[mask == 0].any(), "an observed position has a gradient"
    return flat[mask == 1]


DATA_OF_ONE = [moved([1.1], reward=1.0, traj_idx=0), moved([0.9], reward=0.0, traj_idx=1)]
"""Two trajectories of one action each."""
