"""Clipped policy gradient in which every token of the batch counts the same."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.clipping import clipped_objective, outside
from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def dapo(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    advantage: str = "group_std",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """The objective of ``ppo`` with a higher upper bound, averaged over all N tokens of the batch.

    ::

        loss = -1/N * sum_n min(r_n * A_n, clip(r_n, 1 - eps_low, 1 + eps_high) * A_n),   r_n = pi_n / q_n

        d loss / d log pi_n = 0     where A > 0 and r > 1 + eps_high, or A < 0 and r < 1 - eps_low
                            = -r_n * A_n / N     elsewhere

    Averaging over tokens, not first within each trajectory, keeps a long answer's tokens from counting
    less than a short one's, so that rambling is punished and long reasoning rewarded in full.

    Args:
        data: what was sampled, D datums. N counts clipped tokens and those of zero advantage too.
        logprobs: log pi, in nats. D leaves of shape [T].
        eps_low: how far below 1 the ratio may fall, 0 to 1.
        eps_high: how far above 1 the ratio may rise, 0 or more.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of the advantage, and the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        DAPO, Yu et al., arXiv:2503.14476. Departures: q is in the place of the old policy; dynamic
        sampling and the shaping of overlong rewards are not a loss's business, so they are not here.
    """
    check(eps_low=eps_low, eps_high=eps_high)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    objective = clipped_objective(tokens.moved, tokens.advantages, eps_low=eps_low, eps_high=eps_high)
    return conclude(
        tokens,
        -objective,
        shares=1 / len(objective),
        outside_N=outside(tokens.moved, eps_low=eps_low, eps_high=eps_high),
        kl=kl,
        kl_estimator=kl_estimator,
    )
