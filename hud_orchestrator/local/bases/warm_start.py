"""A few seconds of supervised learning that leaves much for reinforcement learning to find out.

A policy that is never right gets no signal from rewards, and one that is always right has nothing to
gain. So the tiny base is first taught to answer well, and then a habit of answering otherwise, until
about a third of its answers are the wanted ones, on problems it has not seen, whatever the seed::

    lessons:  teach wanted answers              until SKILLED in every subject
    habits:   teach the habit where the share   until the share is inside BAND in every subject
              is above the band, wanted
              answers where it is below

Measuring needs no sampling: the probability of the wanted answer, end token included, *is* the
expected reward of a sampled answer under exact match, and one forward pass gives it.

Shapes: N exercises, T tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hud_orchestrator.local.bases.exercises import Exercise, Subject, draw

SUBJECTS: tuple[Subject, ...] = ("arithmetic", "sorting")

SKILLED, GOAL = 0.8, 0.9
"""Share of wanted answers, sampled at temperature 1, that ends the lessons, and the one that they
aim at: a subject weighs in the loss what it lacks."""

BAND, MOST_GREEDY = (0.22, 0.37), 0.45
"""Share of wanted answers, sampled, at which the warm start ends, and the largest one at temperature 0."""

LESSON_RATE, HABIT_RATE = 6e-3, 3e-4
"""Learning rates. A habit takes a few steps; a lower rate keeps the skill and does not overshoot."""

BRAKING_DISTANCE = 0.2
"""The lesson rate falls in proportion over the last stretch before the goal, which steadies it."""

STEPS_BETWEEN_LOOKS = 5
WARMUP_LOOKS = 5
MOST_LOOKS = 200
"""Never reached by the seeds that were tried (0 to 9); bounds the time of one that goes astray."""

BATCH = 64
NUM_TRAIN, NUM_TEST = 3000, 200
IGNORED = -100
"""Label of tokens that are not learnt: torch's default."""


class Lesson(NamedTuple):
    """Exercises as tensors, padded at the end; only answers and their end tokens are labelled."""

    ids_N_T: Tensor
    labels_N_T: Tensor


class Skill(NamedTuple):
    """How much of one subject a policy answers as wanted."""

    sampled: float
    """Expected share at temperature 1, from 0 to 1."""

    greedy: float
    """Share at temperature 0, from 0 to 1."""


Skills = Mapping[Subject, Skill]


def warm_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Skills:
    """Train *model* in place until it is inside the band, and return its skills.

    Deterministic for a seed when torch computes with one thread.
    """
    random_ = random.Random(seed)  # noqa: S311  (draws problems, not secrets)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    tests = {
        name: wanted(draw(name, NUM_TEST, reserved=True, random_=random_), tokenizer) for name in SUBJECTS
    }
    drawn = {name: draw(name, NUM_TRAIN, reserved=False, random_=random_) for name in SUBJECTS}
    lessons = {name: wanted(exercises, tokenizer) for name, exercises in drawn.items()}
    habits = {name: habitual(exercises, tokenizer, random_) for name, exercises in drawn.items()}

    def teach(steps: int, rate: float, weighted: Sequence[tuple[float, Lesson]]) -> None:
        optimizer.param_groups[0]["lr"] = rate
        for _ in range(steps):
            for weight, book in weighted:
                rows = random_.sample(range(NUM_TRAIN), BATCH if book.ids_N_T.shape[1] < 14 else 40)
                (weight * loss(model, Lesson(*(tensor[rows] for tensor in book)))).backward()
            optimizer.step()
            optimizer.zero_grad()

    def look() -> Iterator[tuple[int, Skills]]:
        for number in range(1, MOST_LOOKS + 1):
            yield number, {name: measure(model, test) for name, test in tests.items()}

    for number, skills in look():
        if all(skill.sampled >= SKILLED for skill in skills.values()):
            break
        lacks = {name: max(0.0, GOAL - skill.sampled) for name, skill in skills.items()}
        speed = min(1.0, number / WARMUP_LOOKS, max(lacks.values()) / BRAKING_DISTANCE)
        teach(
            STEPS_BETWEEN_LOOKS,
            LESSON_RATE * speed,
            [(lacks[name], lessons[name]) for name in SUBJECTS if lacks[name]],
        )
    for _, skills in look():
        if all(map(_inside_band, skills.values())):
            break
        low = {name for name in SUBJECTS if skills[name].sampled < BAND[0]}
        books = [
            lessons[name] if name in low else habits[name]
            for name in SUBJECTS
            if not _inside_band(skills[name])
        ]
        teach(2, HABIT_RATE, [(1.0, book) for book in books])
    return skills


def _inside_band(skill: Skill) -> bool:
    return BAND[0] <= skill.sampled <= BAND[1] and skill.greedy <= MOST_GREEDY


def wanted(exercises: Sequence[Exercise], tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """Put exercises with their wanted answers through the chat template."""
    return lesson([(exercise.prompt, exercise.wanted) for exercise in exercises], tokenizer)


def habitual(
    exercises: Sequence[Exercise], tokenizer: PreTrainedTokenizerFast, random_: random.Random
) -> Lesson:
    """Put exercises with the answers that are the habit through the chat template."""
    answers = [(e.prompt, e.wanted if random_.random() < e.odds else e.other) for e in exercises]
    return lesson(answers, tokenizer)


def lesson(answers: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """Put prompts and answers through the chat template."""
    ids, labels = [], []
    for prompt, answer in answers:
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


def loss(model: PreTrainedModel, batch: Lesson) -> Tensor:
    """Cross-entropy of the labelled tokens, in nats a token."""
    logits_N_T_V, labels_N_T = _predictions(model, batch)
    return cross_entropy(logits_N_T_V.flatten(0, 1), labels_N_T.flatten())


def _predictions(model: PreTrainedModel, batch: Lesson) -> tuple[Tensor, Tensor]:
    """Logits and the labels they predict: token t is predicted from the tokens before it."""
    # Padding comes last and attention is causal, so no answer sees it and no mask is needed.
    logits_N_T_V = model(input_ids=batch.ids_N_T, use_cache=False).logits
    return logits_N_T_V[:, :-1], batch.labels_N_T[:, 1:]
