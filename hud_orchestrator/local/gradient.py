"""Compute the gradient of a batch, one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from hud_orchestrator.local.datums import Batch, Datum
from hud_orchestrator.local.language_model import LanguageModel
from hud_orchestrator.local.microbatches import MicroBatch, cut
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tally import Tally
from hud_orchestrator.local.weights import Tensors


@dataclass(frozen=True, slots=True)
class Gradient:
    """What one call adds to what has accumulated."""

    tensors: Tensors
    """By parameter name, fp32. Empty when every credit was zero."""
    tally: Tally


def compute_gradient(
    model: LanguageModel, tensors: Tensors, batch: Batch, *, tokens_per_microbatch: int
) -> Generator[None, None, Gradient]:
    """The gradient of the summed loss at *tensors*; yields after each micro-batch.

    It belongs to this call until it is returned. A fault, or closing the generator, leaves nothing
    behind, so there is nothing to roll back.

    Raises:
        Refused: 409, the loss or the gradient is not finite.
    """
    tally = Tally(comparable=batch.comparable)
    total: dict[str, Tensor] = {}
    for substep in _slices(batch.credited, batch.substeps):
        for micro in cut(
            substep, tokens=tokens_per_microbatch, vocab_size=model.vocab_size, device=model.device
        ):
            _accumulate(total, _microbatch_gradient(model, tensors, batch, micro, tally))
            yield
    if not all(bool(tensor.isfinite().all()) for tensor in total.values()):
        raise Refused(409, "the gradient is not finite; nothing was added to what has accumulated")
    return Gradient(total, tally)


def _microbatch_gradient(
    model: LanguageModel, tensors: Tensors, batch: Batch, micro: MicroBatch, tally: Tally
) -> dict[str, Tensor]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    with torch.enable_grad():
        distribution = torch.log_softmax(model.logits(leaves, micro.input_ids, micro.wanted), dim=-1)
        logprobs = distribution.gather(1, micro.actions[:, None])[:, 0]
        mask = torch.ones_like(logprobs)
        loss = batch.loss.compute(logprobs, micro.sampling_logprobs, micro.credit, mask, batch.config)
    if not bool(loss.isfinite()):
        raise Refused(409, f"the loss is {float(loss.detach())}; nothing was added to what has accumulated")
    with torch.no_grad():
        tally.add(loss, -(distribution.exp() * distribution).sum(-1))
        tally.compare(logprobs, micro.sampling_logprobs, batch.config)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name: g for name, g in zip(leaves, gradients, strict=True) if g is not None}


def _accumulate(total: dict[str, Tensor], addition: Tensors) -> None:
    for name, gradient in addition.items():
        total[name] = total[name].add_(gradient) if name in total else gradient


def _slices(datums: Sequence[Datum], count: int) -> list[Sequence[Datum]]:
    """*count* contiguous slices of nearly equal length, or fewer of one datum each."""
    count = min(count, len(datums))
    edges = [len(datums) * index // count for index in range(count + 1)] if count else []
    return [datums[low:high] for low, high in pairwise(edges)]
