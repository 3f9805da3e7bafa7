"""Figures that say whether a loss is still learning from its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from hud_orchestrator.losses.client.tokens import Tokens


def diagnose(tokens: Tokens, loss: Tensor, *, outside_N: Tensor | None = None) -> dict[str, float]:
    """Measure *loss* and the distance between pi and q.

    Names that the embedded service's own losses also report mean the same, but for one thing: means
    here are over all action tokens, theirs leave out trajectories of zero advantage.

    Args:
        tokens: what the loss was computed from.
        loss: a scalar.
        outside_N: whether each token's ratio is outside the loss's bounds. Shape [N], bool.

    Returns:
        - ``loss``: its value;
        - ``tokens``: N; ``effective_tokens``: those with a gradient that is not zero, be it for their
          advantage, a clip or a mask. Left out when the loss has no gradient at all;
        - ``ratio_mean``, ``ratio_max``: of pi / q, dimensionless;
        - ``clipped_share``: of tokens outside the loss's bounds, 0 to 1, whether the loss clips, caps
          or masks them; 0 for a loss without bounds;
        - ``kl_k1``, ``kl_k3``: estimates of KL(q || pi) per token, in nats, see ``kl``;
        - ``entropy_estimate``: mean of -log pi at the sampled tokens, in nats: one sample per position
          where ``entropy`` of the service sums over the vocabulary, which a forward does not give. It
          estimates pi's entropy on-policy, and the cross-entropy of q and pi elsewhere;
        - ``sampling_logprob_mean``: mean of log q, in nats.
    """
    with torch.no_grad():
        moved, count = tokens.moved.double(), len(tokens.logprobs)
        ratio = moved.exp()
        figures = {
            "loss": loss,
            "ratio_mean": ratio.mean(),
            "ratio_max": ratio.max(),
            "clipped_share": torch.zeros(()) if outside_N is None else outside_N.double().mean(),
            "kl_k1": -moved.mean(),
            "kl_k3": (ratio - 1 - moved).mean(),
            "entropy_estimate": -tokens.logprobs.double().mean(),
            "sampling_logprob_mean": tokens.sampling_logprobs.double().mean(),
        }
    metrics = {name: float(value.detach()) for name, value in figures.items()} | {"tokens": float(count)}
    if loss.requires_grad:
        # Asked of autograd, so that it is true of every loss. The caller has yet to go backward.
        (gradient,) = torch.autograd.grad(loss, tokens.logprobs, retain_graph=True)
        metrics["effective_tokens"] = float(gradient.count_nonzero())
    return metrics
