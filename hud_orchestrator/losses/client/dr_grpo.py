"""Clipped policy gradient without the biases of length and of difficulty."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.clipping import clipped_objective, outside
from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def dr_grpo(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    max_tokens: float = 1024.0,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """The objective of ``ppo``, divided by constants only. ``group_std`` would bring one bias back.

    ::

        J_n  = min(r_n * A_n, clip(r_n, 1 - eps_low, 1 + eps_high) * A_n),       r_n = pi_n / q_n
        loss = -1/S * sum_s 1/max_tokens * sum_{n in s} J_n

        d loss / d log pi_n = 0     where A > 0 and r > 1 + eps_high, or A < 0 and r < 1 - eps_low
                            = -r_n * A_n / (S * max_tokens)     elsewhere

    GRPO divides by each trajectory's length, which favours short right answers and long wrong ones, and
    by the group's deviation, which favours tasks that are nearly always or nearly never solved. A
    constant does neither.

    Args:
        data: what was sampled, D datums of S trajectories.
        logprobs: log pi, in nats. D leaves of shape [T].
        max_tokens: the constant, in tokens; the source takes the generation budget of a trajectory. It
            scales the gradient and nothing else.
        eps_low: how far below 1 the ratio may fall, 0 to 1.
        eps_high: how far above 1 the ratio may rise, 0 or more.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward, and the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Dr. GRPO, Liu et al., arXiv:2503.20783. Departure: q is in the place of the old policy.
    """
    check(max_tokens=max_tokens, eps_low=eps_low, eps_high=eps_high)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    objective = clipped_objective(tokens.moved, tokens.advantages, eps_low=eps_low, eps_high=eps_high)
    return conclude(
        tokens,
        -objective,
        shares=1 / (tokens.num_trajectories * max_tokens),
        outside_N=outside(tokens.moved, eps_low=eps_low, eps_high=eps_high),
        kl=kl,
        kl_estimator=kl_estimator,
    )
