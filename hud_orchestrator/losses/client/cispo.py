"""Policy gradient with a bounded weight, which never silences a token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hud_orchestrator.losses.client.conclusion import conclude
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tokens import read_tokens


def cispo(
    data: Sequence[DatumTensors],
    logprobs: Sequence[Tensor],
    *,
    clip_low_threshold: float = 0.0,
    clip_high_threshold: float = 4.0,
    advantage: str = "group",
    kl: float = 0.0,
    kl_estimator: str = "k3",
) -> tuple[Tensor, dict[str, float]]:
    """Clip the importance weight and hold it constant, so that every token keeps a gradient.

    ::

        w_n  = clip(pi_n / q_n, clip_low_threshold, clip_high_threshold)
        loss = -sum_n stop_gradient(w_n) * A_n * log pi_n          d loss / d log pi_n = -w_n * A_n

    This is where it differs from ``ppo``, which silences the tokens that it clips: rare tokens at which
    an answer turns ("however", "wait") are the first to leave the band, and the ones worth learning.

    Args:
        data: what was sampled, D datums.
        logprobs: log pi, in nats. D leaves of shape [T].
        clip_low_threshold: least weight, dimensionless, 0 or more. At 0 only the upper bound acts.
        clip_high_threshold: largest weight, dimensionless.
        advantage: of every loss, see the package.
        kl: likewise.
        kl_estimator: likewise.

    Returns:
        The loss, a scalar in units of reward times nats, summed over tokens; only its gradient means
        something. And the metrics of ``diagnostics``.

    Raises:
        ValueError: a setting is out of range, or see ``tokens``.

    Source:
        MiniMax-M1, arXiv:2506.13585. Departures: a sum over tokens instead of their mean; Tinker's
        defaults of 0 and 4; advantages are not divided by the group's deviation. The same gradient and
        keys as the service's built-in of this name.
    """
    check(clip_low_threshold=clip_low_threshold, clip_high_threshold=clip_high_threshold)
    tokens = read_tokens(data, logprobs, advantage=advantage)
    ratio = tokens.moved.detach().exp()
    weight = ratio.clamp(clip_low_threshold, clip_high_threshold)
    losses = -weight * tokens.advantages * tokens.logprobs
    return conclude(tokens, losses, outside_N=ratio != weight, kl=kl, kl_estimator=kl_estimator)
