"""Off-policy learning held near the sampling policy by a quadratic penalty."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def dro(
    logprobs: Tensor,
    sampling_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: Mapping[str, float],
) -> Tensor:
    """Maximise advantage-weighted likelihood minus a squared distance from where it was sampled.

    ::

        loss = -sum_t mask_t * (A_t * log pi_t - beta / 2 * (log pi_t - log q_t)^2)

        d loss / d log pi_t = -mask_t * (A_t - beta * (log pi_t - log q_t))

    There is no importance ratio to explode; instead a token stops where its log-probability has
    moved by ``A_t / beta``.

    Args:
        logprobs: log pi, in nats.
        sampling_logprobs: log q of the same tokens when they were sampled, in nats.
        advantages: in units of reward.
        mask: 1.0 on tokens the policy chose, 0.0 elsewhere.
        config: ``beta``, strength of the penalty, in units of reward per nat, above 0.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens.

    Source:
        Direct Reward Optimisation: Richemond et al., arXiv:2405.19107, in the per-token form of
        Kimi k1.5 (arXiv:2501.12599) that Tinker publishes for ``dro``. Departure: the advantage
        is the group-centred reward of the other losses, not a learned soft value.
    """
    moved = logprobs - sampling_logprobs
    return -(mask * (advantages * logprobs - 0.5 * config["beta"] * moved.square())).sum()
