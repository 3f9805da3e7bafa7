"""Policy gradient that ignores tokens on which sampler and trainer disagree."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def icepop(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    mask_below: float = 0.5,
    mask_above: float = 5.0,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Weigh tokens by ``pi / q`` inside a wide band, held constant, and mask out those beyond it.

    ::

        w_n  = pi_n / q_n     if mask_below <= pi_n / q_n <= mask_above, else 0
        loss = -sum_n stop_gradient(w_n) * A_n * log pi_n          d loss / d log pi_n = -w_n * A_n

    A ratio so far from 1 says that the two engines computed something different (another expert was
    chosen, another kernel rounded), not that the policy learnt; a capped weight, as in ``tis``, would
    still follow such a token.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        mask_below: least ratio that counts, dimensionless, 0 or more (alpha of the source).
        mask_above: largest ratio that counts, dimensionless (beta of the source).
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens; only its gradient means
        something. And the metrics of ``diagnostics``; ``clipped_share`` is of masked tokens.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        IcePop, in the Ring-1T report, arXiv:2510.18855; the defaults are also those of INTELLECT-3,
        arXiv:2512.16144. Departures: the source's ratio is pi_old / q beside PPO's clipped pi / pi_old,
        which is 1 with one gradient per forward; a sum over tokens instead of a mean.
    """
    check(mask_below=mask_below, mask_above=mask_above)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    ratio = tokens.moved.detach().exp()
    masked = (ratio < mask_below) | (ratio > mask_above)
    losses = -ratio.masked_fill(masked, 0.0) * tokens.advantages * tokens.logprobs
    return conclude(tokens, losses, outside_N=masked, kl=kl, kl_estimator=kl_estimator)
