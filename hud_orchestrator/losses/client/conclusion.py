"""The last step of every loss: add the penalty, sum up, and measure."""

from __future__ import annotations

from torch import Tensor

from hud_orchestrator.losses.client.diagnostics import diagnose
from hud_orchestrator.losses.client.kl import kl_estimates
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import Tokens


def conclude(
    tokens: Tokens,
    losses_N: Tensor,
    *,
    shares: Tensor | float = 1.0,
    outside_N: Tensor | None = None,
    kl: float,
    kl_estimator: str,
) -> tuple[Tensor, dict[str, float]]:
    """Sum the tokens' losses, each with its KL penalty and its share.

    ::

        loss = sum_n shares_n * (losses_n + kl * k_n)

    Args:
        tokens: what the loss is about.
        losses_N: the loss of each token, in units of reward. Shape [N].
        shares: what each token counts: 1 makes a sum, 1 / N a mean. A number, or shape [N].
        outside_N: whether each token's ratio is outside the loss's bounds. Shape [N], bool. ``None``:
            there are none.
        kl: strength of the penalty, in units of reward per nat; 0: none.
        kl_estimator: see ``kl``.

    Returns:
        The loss, a scalar, and its metrics.

    Raises:
        ValueError: the strength is negative, or there is no such estimator.
    """
    check(kl=kl, kl_estimator=kl_estimator)
    if kl:
        losses_N = losses_N + kl * kl_estimates(tokens.moved, estimator=kl_estimator)
    loss = (shares * losses_N).sum()
    return loss, diagnose(tokens, loss, outside_N=outside_N)
