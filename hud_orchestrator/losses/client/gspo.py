"""Clipped policy gradient whose unit is the trajectory, as the reward's is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hud_orchestrator.losses.client.clipping import clipped_objective, outside
from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import Tokens, read_tokens


def gspo(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
    advantage: str = "group_std",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Clip by the geometric mean of a trajectory's ratios, so that it learns or is silent as a whole.

    With ``L_s`` the action tokens of trajectory s::

        R_s  = exp(1/L_s * sum_{n in s} (log pi_n - log q_n))
        loss = -1/S * sum_s min(R_s * A_s, clip(R_s, 1 - eps_low, 1 + eps_high) * A_s)

        d loss / d log pi_n = 0     where A > 0 and R > 1 + eps_high, or A < 0 and R < 1 - eps_low
                            = -R_s * A_s / (S * L_s)     elsewhere

    The noise of single tokens' ratios averages out before anything is clipped, which is why the bounds
    are so narrow; it was found to keep mixture-of-experts models stable.

    Args:
        data: what was sampled, D datums of S trajectories. A sequence is a *trajectory*: all action
            tokens of all its turns, because that is what one reward was given for.
        logprobs: log pi, in nats. D leaves of shape [T].
        eps_low: how far below 1 the mean ratio may fall, 0 to 1.
        eps_high: how far above 1 the mean ratio may rise, 0 or more.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of the advantage, and the metrics of ``diagnostics``;
        ``clipped_share`` is of tokens in trajectories whose mean ratio is outside the bounds.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        GSPO, Zheng et al., arXiv:2507.18071. Departures: q is in the place of the old policy; a
        trajectory without an action token counts in S. The paper's GSPO-token form,
        ``stop_gradient(R_s) * pi_n / stop_gradient(pi_n)`` per token, has this very gradient as long as
        all tokens of a trajectory share one advantage, as here, so there is no setting for it.
    """
    check(eps_low=eps_low, eps_high=eps_high)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    mean_moved = _mean_moved(tokens)
    objective = clipped_objective(mean_moved, tokens.advantages, eps_low=eps_low, eps_high=eps_high)
    return conclude(
        tokens,
        -objective,
        shares=1 / (tokens.num_trajectories * tokens.lengths[tokens.trajectories]),
        outside_N=outside(mean_moved, eps_low=eps_low, eps_high=eps_high),
        kl=kl,
        kl_estimator=kl_estimator,
    )


def _mean_moved(tokens: Tokens) -> Tensor:
    """The mean log-ratio of each token's trajectory, in nats. Shape [N]."""
    total = torch.zeros_like(tokens.lengths).index_add(0, tokens.trajectories, tokens.moved)
    return (total / tokens.lengths.clamp(min=1))[tokens.trajectories]
