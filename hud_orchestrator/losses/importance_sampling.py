"""Policy gradient, corrected for the policy having moved since sampling."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hud_orchestrator.losses.signature import importance_ratio


def importance_sampling(
    logprobs: Tensor,
    sampling_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: Mapping[str, float],  # noqa: ARG001 - one signature for all losses
) -> Tensor:
    """Weigh each token's advantage by ``pi / q``, without any bound.

    ::

        loss = -sum_t mask_t * (pi_t / q_t) * A_t       d loss / d log pi_t = -mask_t * (pi_t / q_t) * A_t

    Unbiased per token, and right on-policy, where the ratio is 1. The ratio is not clipped, so it
    diverges a few steps off-policy; ``ppo`` and ``cispo`` do not.

    Args:
        logprobs: log pi, in nats.
        sampling_logprobs: log q of the same tokens when they were sampled, in nats.
        advantages: in units of reward.
        mask: 1.0 on tokens the policy chose, 0.0 elsewhere.
        config: no keys.

    Returns:
        The loss, a scalar in units of reward, summed over tokens.

    Raises:
        ValueError: the shapes differ.

    Source:
        Tinker's convention for ``importance_sampling``.
    """
    return -(mask * importance_ratio(logprobs, sampling_logprobs) * advantages).sum()
