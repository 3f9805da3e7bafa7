"""Policy gradient with a bounded weight, which never silences a token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hud_orchestrator.losses.signature import importance_ratio


def cispo(
    logprobs: Tensor,
    sampling_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: Mapping[str, float],
) -> Tensor:
    """Clip the importance weight and hold it constant, so that every token keeps a gradient.

    ::

        loss = -sum_t mask_t * stop_gradient(clip(pi_t / q_t, low, high)) * A_t * log pi_t

        d loss / d log pi_t = -mask_t * clip(pi_t / q_t, low, high) * A_t

    This is where it differs from ``ppo``, which silences the tokens that it clips.

    Args:
        logprobs: log pi, in nats.
        sampling_logprobs: log q of the same tokens when they were sampled, in nats.
        advantages: in units of reward.
        mask: 1.0 on tokens the policy chose, 0.0 elsewhere.
        config: ``clip_low_threshold`` and ``clip_high_threshold``, bounds of the weight. At a low
            bound of 0 only the upper one acts.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens. Only its gradient
        means something.

    Raises:
        ValueError: the shapes differ.

    Source:
        MiniMax-M1, arXiv:2506.13585. Departures: a sum over tokens instead of their mean, and
        Tinker's defaults of 0 and 4 for the bounds.
    """
    weight = importance_ratio(logprobs, sampling_logprobs).detach()
    weight = weight.clamp(config["clip_low_threshold"], config["clip_high_threshold"])
    return -(mask * weight * advantages * logprobs).sum()
