"""Policy gradient that stops pushing a token once it has moved far enough."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.clipping import clipped_objective, outside
from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def ppo(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    dual_clip: float | None = None,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Take the worse of the plain and the clipped objective, token by token.

    ::

        r_n  = pi_n / q_n
        loss = -sum_n min(r_n * A_n, clip(r_n, 1 - eps_low, 1 + eps_high) * A_n)

        d loss / d log pi_n = 0                 where A > 0 and r > 1 + eps_high
                            = 0                 where A < 0 and r < 1 - eps_low
                            = 0                 where A < 0 and r > dual_clip
                            = -r_n * A_n        elsewhere

    ``eps_high`` above ``eps_low`` ("clip-higher") lets unlikely tokens that worked gain more before they
    fall silent. Without ``dual_clip``, a token with A < 0 whose probability has *grown* since sampling
    has a gradient without bound.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        eps_low: how far below 1 the ratio may fall, 0 to 1. At 1 nothing acts below.
        eps_high: how far above 1 the ratio may rise, 0 or more.
        dual_clip: largest ratio of a token with A < 0, above 1; the source takes 3. ``None``: none.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward, summed over tokens, and the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Schulman et al., arXiv:1707.06347, equation 7; the dual clip of Ye et al., arXiv:1912.09729.
        Departures: a sum, not a mean; q is in the place of the old policy; no value function. The same
        gradient as the service's ``ppo``, whose bounds are of the ratio itself: ``clip_low_threshold``
        is ``1 - eps_low``, ``clip_high_threshold`` is ``1 + eps_high``.
    """
    check(eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    objective = clipped_objective(
        tokens.moved, tokens.advantages, eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip
    )
    outside_N = outside(tokens.moved, eps_low=eps_low, eps_high=eps_high)
    return conclude(tokens, -objective, outside_N=outside_N, kl=kl, kl_estimator=kl_estimator)
