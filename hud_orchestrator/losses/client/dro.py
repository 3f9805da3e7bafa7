"""Off-policy learning held near the sampling policy by a quadratic penalty."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def dro(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    beta: float = 0.05,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Maximise advantage-weighted likelihood minus a squared distance from where it was sampled.

    ::

        loss = -sum_n (A_n * log pi_n - beta / 2 * (log pi_n - log q_n)^2)

        d loss / d log pi_n = -(A_n - beta * (log pi_n - log q_n))

    There is no importance ratio to explode; instead a token stops where its log-probability has moved
    by ``A_n / beta``. ``kl`` with ``k2`` adds to ``beta``, for they are the same penalty. The service's
    built-in leaves out trajectories of zero advantage, penalty and all; here they are held near q too.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        beta: strength of the penalty, in units of reward per nat, above 0.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens, and the metrics of
        ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Direct Reward Optimisation: Richemond et al., arXiv:2405.19107, in the per-token form of
        Kimi k1.5 (arXiv:2501.12599) that Tinker publishes for ``dro``. Departure: the advantage is the
        group-centred reward of the other losses, not a learned soft value.
    """
    check(beta=beta)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    losses = 0.5 * beta * tokens.moved.square() - tokens.advantages * tokens.logprobs
    return conclude(tokens, losses, kl=kl, kl_estimator=kl_estimator)
