"""Policy gradient, corrected for the policy having moved since sampling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.tokens import read_tokens


def importance_sampling(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Weigh each token's advantage by ``pi / q``, without any bound.

    ::

        loss = -sum_n (pi_n / q_n) * A_n            d loss / d log pi_n = -(pi_n / q_n) * A_n

    Unbiased per token, and right on-policy, where the ratio is 1. Nothing bounds the ratio, so it
    diverges a few steps off-policy. The same gradient as the service's built-in of this name, unless
    ``advantage`` or ``kl`` is set.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward, summed over tokens, and the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Tinker's convention for ``importance_sampling``. Departure: the optional penalty.
    """
    tokens = read_tokens(data, logprobs, advantage=advantage)
    return conclude(tokens, -tokens.moved.exp() * tokens.advantages, kl=kl, kl_estimator=kl_estimator)
