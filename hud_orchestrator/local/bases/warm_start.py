"""A few seconds of supervised learning, stopped while there is still much left to learn.

A policy that is never right gets no signal from reinforcement learning, and one that is always
right has nothing to gain. So the tiny base is trained on right answers until it gives about a
third of them itself, on problems it has not seen, whatever the seed::

    measure every subject -> all good enough? done
         ^                   otherwise train the weak ones for STEPS_BETWEEN_LOOKS --+
         +---------------------------------------------------------------------------+

Measuring needs no sampling: the probability of the right answer, end token included, *is* the
expected reward of a sampled answer under exact match, and one forward pass gives it.

Shapes: N exercises, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hud_orchestrator.local.bases.exercises import Exercise, Subject, draw

SUBJECTS: tuple[Subject, ...] = ("arithmetic", "sorting")

GOAL, TOLERANCE = 0.25, 0.02
"""Share of right answers at temperature 1 that every subject approaches, and how close is enough."""

BRAKING_DISTANCE = 0.15
"""Learning slows down in proportion over the last stretch before the goal, which would otherwise
be overshot: at full speed a subject gains 0.1 between two looks."""

STEPS_BETWEEN_LOOKS = 5
MOST_LOOKS = 300
LEARNING_RATE = 6e-3
WARMUP_LOOKS = 5
BATCH = 64
NUM_TRAIN, NUM_TEST = 4096, 256
IGNORED = -100
"""Label of tokens that are not learnt: torch's default."""


class Lesson(NamedTuple):
    """Exercises as tensors, padded at the end; only answers and their end tokens are labelled."""

    ids_N_T: Tensor
    labels_N_T: Tensor


class Skill(NamedTuple):
    """How good a policy is at one subject."""

    sampled: float
    """Expected share of right answers at temperature 1, from 0 to 1."""

    greedy: float
    """Share of right answers at temperature 0, from 0 to 1."""


def warm_start(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> dict[Subject, Skill]:
    """Train *model* in place until it is good enough at every subject, and return its skills.

    Deterministic for a seed when torch computes with one thread.
    """
    random_ = random.Random(seed)  # noqa: S311  (draws problems, not secrets)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)

    def lessons(num: int, *, reserved: bool) -> dict[Subject, Lesson]:
        return {
            name: lesson(draw(name, num, reserved=reserved, random_=random_), tokenizer) for name in SUBJECTS
        }

    tests, books = lessons(NUM_TEST, reserved=True), lessons(NUM_TRAIN, reserved=False)
    for look in range(MOST_LOOKS):
        skills = {name: measure(model, test) for name, test in tests.items()}
        gaps = {name: GOAL - skill.sampled for name, skill in skills.items()}
        if max(gaps.values()) <= TOLERANCE:
            break
        speed = min(1.0, max(gaps.values()) / BRAKING_DISTANCE, (look + 1) / WARMUP_LOOKS)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * speed
        for _ in range(STEPS_BETWEEN_LOOKS):
            for name in (name for name in SUBJECTS if gaps[name] > 0):
                rows = random_.sample(range(NUM_TRAIN), BATCH)
                loss = _loss(model, Lesson(*(tensor[rows] for tensor in books[name])))
                (loss * gaps[name]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return skills


def lesson(exercises: Sequence[Exercise], tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """Put exercises through the chat template."""
    ids, labels = [], []
    for prompt, answer in exercises:
        chat = [{"role": "user", "content": prompt}]
        question = tokenizer.encode(
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        )
        reply = [*tokenizer.encode(answer), tokenizer.eos_token_id]
        ids.append(torch.tensor(question + reply))
        labels.append(torch.tensor([IGNORED] * len(question) + reply))
    pad = torch.nn.utils.rnn.pad_sequence
    return Lesson(pad(ids, batch_first=True), pad(labels, batch_first=True, padding_value=IGNORED))


def measure(model: PreTrainedModel, test: Lesson) -> Skill:
    """Measure the skill of *model* exactly, without sampling."""
    with torch.no_grad():
        logits_N_T_V, labels_N_T = _predictions(model, test)
    answer_N_T = labels_N_T != IGNORED
    nats_N_T = cross_entropy(logits_N_T_V.transpose(1, 2), labels_N_T, reduction="none")
    right_N_T = (logits_N_T_V.argmax(-1) == labels_N_T) | ~answer_N_T
    return Skill((-nats_N_T.sum(1)).exp().mean().item(), right_N_T.all(1).float().mean().item())


def _loss(model: PreTrainedModel, batch: Lesson) -> Tensor:
    logits_N_T_V, labels_N_T = _predictions(model, batch)
    return cross_entropy(logits_N_T_V.flatten(0, 1), labels_N_T.flatten())


def _predictions(model: PreTrainedModel, batch: Lesson) -> tuple[Tensor, Tensor]:
    """Logits and the labels they predict: token t is predicted from the tokens before it."""
    # Padding comes last and attention is causal, so no answer sees it and no mask is needed.
    logits_N_T_V = model(input_ids=batch.ids_N_T, use_cache=False).logits
    return logits_N_T_V[:, :-1], batch.labels_N_T[:, 1:]
