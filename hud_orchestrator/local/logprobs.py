"""Compute what the policy thinks of every token of some datums, one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import torch

from hud_orchestrator.local.datums import Datum
from hud_orchestrator.local.language_model import LanguageModel
from hud_orchestrator.local.microbatches import MicroBatch, cut
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.weights import Tensors

AT_ONCE = 1024
"""Rows of logits that are normalised together; a copy of all of them would double the memory."""


def compute_logprobs(
    model: LanguageModel, tensors: Tensors, datums: Sequence[Datum], *, tokens_per_microbatch: int
) -> Generator[None, None, list[list[float]]]:
    """Log-probabilities of prompts and outputs at *tensors*; yields after each micro-batch.

    Returns:
        One list per datum, in nats: element t is about token t + 1 of prompt and output, so it has
        one element less than they have tokens.

    Raises:
        Refused: 409, one is not finite.
    """
    # To a datum whose prompt is one token, everything that follows is an action.
    whole = [_all_actions(datum) for datum in datums]
    found: list[list[float]] = [[] for _ in datums]
    for micro in cut(whole, tokens=tokens_per_microbatch, vocab_size=model.vocab_size, device=model.device):
        logprobs, begin = _microbatch_logprobs(model, tensors, micro), 0
        for row in micro.rows:
            end = begin + len(whole[row].output)
            found[row] = logprobs[begin:end]
            begin = end
        yield
    return found


def _all_actions(datum: Datum) -> Datum:
    first, *rest = datum.prompt
    return replace(datum, prompt=[first], output=[*rest, *datum.output], sampling_logprobs=(), credit=())


def _microbatch_logprobs(model: LanguageModel, tensors: Tensors, micro: MicroBatch) -> list[float]:
    with torch.no_grad():
        logits = model.logits(tensors, micro.input_ids, micro.wanted)
        parts = [slice(begin, begin + AT_ONCE) for begin in range(0, len(logits), AT_ONCE)]
        logprobs = torch.cat(
            [logits[part].log_softmax(-1).gather(1, micro.actions[part, None])[:, 0] for part in parts]
        )
    if not bool(logprobs.isfinite().all()):
        raise Refused(409, "the policy gives log-probabilities that are not finite; it has diverged")
    values: list[float] = logprobs.tolist()
    return values
