"""Cut datums into right-padded micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hud_orchestrator.local.datums import Datum

LOGITS_PER_MICROBATCH = 2**26
"""Logits computed at once, at most: 256 MB each for them, their softmax and its gradient. A large
vocabulary reaches this long before ``tokens_per_microbatch``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Tensors of some datums. B rows of width T; N action tokens in all, in row order."""

    rows: list[int]
    """Position of each row's datum in what was cut. B of them."""
    input_ids: Tensor
    """Prompt and output but the last token, padded on the right with 0. Shape [B, T]."""
    wanted: Tensor
    """Flat positions whose next token is an action. Shape [N]."""
    actions: Tensor
    """The action tokens. Shape [N]."""
    sampling_logprobs: Tensor
    """In nats; 0 where the client sent none. Shape [N]."""
    credit: Tensor
    """What the loss weighs the actions by. Shape [N]."""


def cut(
    datums: Sequence[Datum], *, tokens: int, vocab_size: int, device: torch.device
) -> Iterator[MicroBatch]:
    """Micro-batches of similar lengths, each of at most *tokens* padded tokens, or of one datum.

    The order depends on the datums alone, so equal requests sum their gradients in equal order.
    """
    chosen: list[int] = []
    actions = 0
    for index in sorted(range(len(datums)), key=lambda one: _length(datums[one]), reverse=True):
        datum = datums[index]
        width = _length(datums[chosen[0]]) if chosen else 0
        full = (len(chosen) + 1) * width > tokens
        heavy = (actions + len(datum.output)) * vocab_size > LOGITS_PER_MICROBATCH
        if chosen and (full or heavy):
            yield _stack(datums, chosen, device)
            chosen, actions = [], 0
        chosen.append(index)
        actions += len(datum.output)
    if chosen:
        yield _stack(datums, chosen, device)


def _length(datum: Datum) -> int:
    return len(datum.prompt) + len(datum.output) - 1


def _stack(datums: Sequence[Datum], chosen: list[int], device: torch.device) -> MicroBatch:
    width = _length(datums[chosen[0]])
    padded: list[list[int]] = []
    wanted: list[int] = []
    actions: list[int] = []
    logprobs: list[float] = []
    credit: list[float] = []
    for row, datum in enumerate(datums[index] for index in chosen):
        ids = [*datum.prompt, *datum.output[:-1]]
        padded.append(ids + [0] * (width - len(ids)))
        first = row * width + len(datum.prompt) - 1
        wanted += range(first, first + len(datum.output))
        actions += datum.output
        logprobs += datum.sampling_logprobs or [0.0] * len(datum.output)
        credit += datum.credit or [0.0] * len(datum.output)
    return MicroBatch(
        rows=chosen,
        input_ids=torch.tensor(padded, device=device),
        wanted=torch.tensor(wanted, device=device),
        actions=torch.tensor(actions, device=device),
        sampling_logprobs=torch.tensor(logprobs, dtype=torch.float32, device=device),
        credit=torch.tensor(credit, dtype=torch.float32, device=device),
    )
