"""Policy gradient corrected, up to a cap, for a sampler that is not quite the trainer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def tis(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    ratio_cap: float = 2.0,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Truncated importance sampling: the weight ``pi / q`` is capped from above and held constant.

    ::

        w_n  = min(pi_n / q_n, ratio_cap)
        loss = -sum_n stop_gradient(w_n) * A_n * log pi_n          d loss / d log pi_n = -w_n * A_n

    Inference and training engines give the same token different probabilities. The weight takes that
    bias out where the ratio is moderate, and the cap keeps the variance of the rest finite.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        ratio_cap: largest weight, dimensionless, above 0.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens; only its gradient means
        something. And the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025,
        fengyao.notion.site/off-policy-rl). Departures: the source caps pi_old / q, of the trainer before
        any step and the sampler, and multiplies it with PPO's clipped pi / pi_old. With one gradient per
        forward, pi is pi_old, the second ratio is 1 and its clip never acts. What is left is ``cispo``
        with bounds of 0 and ``ratio_cap``.
    """
    check(ratio_cap=ratio_cap)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    ratio = tokens.moved.detach().exp()
    losses = -ratio.clamp(max=ratio_cap) * tokens.advantages * tokens.logprobs
    return conclude(tokens, losses, outside_N=ratio > ratio_cap, kl=kl, kl_estimator=kl_estimator)
