"""Draw the next token of every row, each from a stream of uniforms of its own."""

from __future__ import annotations

import torch
from torch import Tensor

_BELOW_ONE = 1 - 2**-23
"""Largest uniform that is used: times any total it stays below that total in fp32."""


def draw(
    logits: Tensor, uniforms: Tensor, temperatures: Tensor, top_ps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample one token per row, by inverting the cumulative distribution in vocabulary order.

    A row's token depends on its own logits and uniform only, so neighbours in the batch change it
    by no more than float noise in the logits.

    Args:
        logits: fp32. Shape [B, V].
        uniforms: from [0, 1). Shape [B].
        temperatures: 0 takes the most likely token. Shape [B].
        top_ps: keep the fewest most likely tokens whose probability reaches this, in (0, 1]. Shape [B].

    Returns:
        Token ids, shape [B]; their log-probabilities in nats, shape [B]; and those of every token, shape
        [B, V]; under the distribution that was drawn from: after temperature and top-p. For temperature
        0, under the model's own softmax, for that draw has no distribution worth the name.
    """
    greedy = temperatures == 0
    # From the largest down, so that a temperature of almost 0 gives -inf and not a quotient of infinities.
    below = logits - logits.amax(-1, keepdim=True)
    scaled = below / torch.where(greedy, 1.0, temperatures)[:, None]
    logprobs = torch.log_softmax(scaled, dim=-1)
    if bool((top_ps < 1).any()):
        logprobs = torch.where((greedy | (top_ps >= 1))[:, None], logprobs, _nucleus(logprobs, top_ps))
    cumulative = logprobs.exp().cumsum(-1)
    # Rounding leaves the last entry near 1, not at it.
    points = uniforms.clamp(max=_BELOW_ONE)[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, points, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    tokens = torch.where(greedy, logits.argmax(-1), drawn)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0], logprobs


def _nucleus(logprobs: Tensor, top_ps: Tensor) -> Tensor:
    """Renormalise over the smallest set of tokens that reaches ``top_ps``; -inf elsewhere."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.exp()
    before = probabilities.cumsum(-1) - probabilities
    # The first token has nothing before it, and stays also when top-p is too small for fp32.
    ordered = ordered.masked_fill((before > 0) & (before >= top_ps[:, None]), -torch.inf)
    kept = torch.empty_like(logprobs).scatter_(1, order, ordered)
    return kept - kept.logsumexp(-1, keepdim=True)
