"""What every built-in loss is called with, and the two lines that most of them share.

Shapes, for all losses: ``logprobs``, ``sampling_logprobs``, ``advantages`` and ``mask`` have one
common shape (any), with one element per token. Only ``logprobs`` carries a gradient. The loss is a
scalar, and a **sum** over tokens, not a mean: a batch cut in slices has the gradient of the whole,
and the learning rate does not depend on how the cut is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """A scalar to minimise, from per-token tensors of one common shape."""

    def __call__(
        self,
        logprobs: Tensor,
        sampling_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        config: Mapping[str, float],
    ) -> Tensor:
        """Compute the loss; ``config`` holds every key that the loss knows."""
        ...


def importance_ratio(logprobs: Tensor, sampling_logprobs: Tensor) -> Tensor:
    """``pi / q`` per token, dimensionless; 1 where the policy has not moved since sampling.

    Raises:
        ValueError: the shapes differ, which broadcasting would hide.
    """
    if logprobs.shape != sampling_logprobs.shape:
        raise ValueError(
            f"logprobs have shape {tuple(logprobs.shape)}, "
            f"sampling_logprobs have {tuple(sampling_logprobs.shape)}"
        )
    return (logprobs - sampling_logprobs).exp()
