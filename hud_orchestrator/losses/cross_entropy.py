"""Imitate what was sampled."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def cross_entropy(
    logprobs: Tensor,
    sampling_logprobs: Tensor,  # noqa: ARG001 - one signature for all losses
    advantages: Tensor,  # noqa: ARG001
    mask: Tensor,
    config: Mapping[str, float],  # noqa: ARG001
) -> Tensor:
    """Supervised learning: raise the probability of every unmasked token, whatever its reward.

    ::

        loss = -sum_t mask_t * log pi_t          d loss / d log pi_t = -mask_t

    Args:
        logprobs: log pi of the tokens, in nats.
        sampling_logprobs: unused.
        advantages: unused; rewards do not matter here.
        mask: weight of each token, dimensionless: 1.0 to imitate, 0.0 to ignore.
        config: no keys.

    Returns:
        The loss, a scalar in nats, summed over tokens.

    Source:
        Tinker's convention for ``cross_entropy``, with all weights 1.
    """
    return -(mask * logprobs).sum()
