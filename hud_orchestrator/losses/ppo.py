"""Policy gradient that stops pushing a token once it has moved far enough."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hud_orchestrator.losses.signature import importance_ratio


def ppo(
    logprobs: Tensor,
    sampling_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: Mapping[str, float],
) -> Tensor:
    """Take the worse of the plain and the clipped objective.

    ::

        r_t  = pi_t / q_t
        loss = -sum_t mask_t * min(r_t * A_t, clip(r_t, low, high) * A_t)

        d loss / d log pi_t = 0                       where A_t > 0 and r_t > high, or A_t < 0 and r_t < low
                            = -mask_t * r_t * A_t     elsewhere

    Args:
        logprobs: log pi, in nats.
        sampling_logprobs: log q of the same tokens when they were sampled, in nats.
        advantages: in units of reward.
        mask: 1.0 on tokens the policy chose, 0.0 elsewhere.
        config: ``clip_low_threshold`` and ``clip_high_threshold``, bounds of the ratio.

    Returns:
        The loss, a scalar in units of reward, summed over tokens.

    Raises:
        ValueError: the shapes differ.

    Source:
        Schulman et al., arXiv:1707.06347, equation 7; the bounds are of the ratio itself (0.8 and
        1.2), as in Tinker, where the paper gives their distance from 1.
    """
    ratio = importance_ratio(logprobs, sampling_logprobs)
    clipped = ratio.clamp(config["clip_low_threshold"], config["clip_high_threshold"])
    return -(mask * torch.minimum(ratio * advantages, clipped * advantages)).sum()
