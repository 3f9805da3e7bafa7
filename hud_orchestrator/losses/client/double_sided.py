"""Policy gradient that ignores tokens which have left a narrow trust region, whichever way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.clipping import outside
from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def double_sided(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Weigh tokens by ``pi / q`` inside the trust region, and mask out those outside it.

    ::

        r_n  = pi_n / q_n
        loss = -sum_n r_n * A_n * [1 - eps_low <= r_n <= 1 + eps_high]

        d loss / d log pi_n = -r_n * A_n    inside,   0 outside, for A of either sign

    ``ppo`` silences a token only where the gradient would push it further out, so that a stale token
    may still be pulled back with a large weight. Here such a token says nothing at all, which suits
    asynchronous sampling, where the ratio of a stale token is mostly noise.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        eps_low: how far below 1 the ratio may be, 0 to 1.
        eps_high: how far above 1 the ratio may be, 0 or more.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward, summed over tokens, and the metrics of ``diagnostics``;
        ``clipped_share`` is of masked tokens.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Direct double-sided importance sampling of GLM-5, arXiv:2602.15763. Departures: a sum over
        tokens instead of a mean; the defaults of the bounds are DAPO's. Where the bounds agree,
        ``icepop`` has this gradient too: there the mask is for engines that disagree, so it is wide.
    """
    check(eps_low=eps_low, eps_high=eps_high)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    masked = outside(tokens.moved, eps_low=eps_low, eps_high=eps_high)
    # Masked before exp as well, or an overflow there would come back as the gradient 0 * inf.
    ratio = tokens.moved.masked_fill(masked, 0.0).exp().masked_fill(masked, 0.0)
    return conclude(tokens, -ratio * tokens.advantages, outside_N=masked, kl=kl, kl_estimator=kl_estimator)
