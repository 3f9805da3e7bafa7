"""Exercises as tensors, and what a model makes of them.

Shapes: N exercises, T tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

IGNORED = -100
"""Label of tokens that are not learnt: torch's default."""


class Lesson(NamedTuple):
    """Questions and replies, padded at the end; only replies and their end tokens are labelled."""

    ids_N_T: Tensor
    labels_N_T: Tensor

    def sample(self, num: int, random_: random.Random) -> Lesson:
        """Take *num* different exercises."""
        rows = random_.sample(range(len(self.ids_N_T)), num)
        return Lesson(self.ids_N_T[rows], self.labels_N_T[rows])


class Skill(NamedTuple):
    """How much of one subject a policy answers as wanted."""

    sampled: float
    """Expected share at temperature 1, from 0 to 1."""

    greedy: float
    """Share at temperature 0, from 0 to 1."""


def lesson(replies: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """Put prompts and replies through the chat template."""
    ids, labels = [], []
    for prompt, reply in replies:
        chat = [{"role": "user", "content": prompt}]
        question = tokenizer.encode(
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        )
        learnt = [*tokenizer.encode(reply), tokenizer.eos_token_id]
        ids.append(torch.tensor(question + learnt))
        labels.append(torch.tensor([IGNORED] * len(question) + learnt))
    return Lesson(pad_sequence(ids, True), pad_sequence(labels, True, IGNORED))


def measure(model: PreTrainedModel, test: Lesson) -> Skill:
    """Measure the skill of *model* exactly, without sampling.

    The probability of the wanted reply, end token included, *is* the expected reward of a sampled
    one under exact match, and one forward pass gives it.
    """
    with torch.no_grad():
        logits_N_T_V, labels_N_T = _predictions(model, test)
    nats_N_T = cross_entropy(logits_N_T_V.transpose(1, 2), labels_N_T, reduction="none")
    right_N_T = (logits_N_T_V.argmax(-1) == labels_N_T) | (labels_N_T == IGNORED)
    return Skill((-nats_N_T.sum(1)).exp().mean().item(), right_N_T.all(1).float().mean().item())


def loss(model: PreTrainedModel, batch: Lesson) -> Tensor:
    """Cross-entropy of the labelled tokens, in nats a token."""
    logits_N_T_V, labels_N_T = _predictions(model, batch)
    return cross_entropy(logits_N_T_V.flatten(0, 1), labels_N_T.flatten())


def _predictions(model: PreTrainedModel, batch: Lesson) -> tuple[Tensor, Tensor]:
    """Logits and the labels they predict: token t is predicted from the tokens before it."""
    # Padding comes last and attention is causal, so no reply sees it and no mask is needed.
    logits_N_T_V = model(input_ids=batch.ids_N_T, use_cache=False).logits
    return logits_N_T_V[:, :-1], batch.labels_N_T[:, 1:]
