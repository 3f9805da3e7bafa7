"""A few seconds of supervised learning that leave much for reinforcement learning to find out.

A policy that is never right gets no signal from rewards, and one that is always right has nothing to
gain. So the tiny base is first taught to answer well, and then a habit of shrugging instead, until
about a third of its replies are right, on problems it has not seen, whatever the seed::

    lessons   right answers                       until SKILLED in every subject
    habits    answers and shrugs as they may be   until every subject is inside BAND

Both look at the skills every few steps, because the number of steps that a seed needs varies by two.
(Stopping the lessons at a third of right answers instead leaves a policy that has not understood:
rewards then took ten times the rollouts to get from 0.4 to 0.6.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases.exercises import SHRUG, Exercise, Subject, draw
from hud_orchestrator.local.bases.lessons import Lesson, Skill, lesson, loss, measure

Skills = Mapping[Subject, Skill]
Books = Mapping[Subject, Lesson]

SUBJECTS: tuple[Subject, ...] = ("arithmetic", "sorting")

SKILLED: Mapping[Subject, float] = {"arithmetic": 0.88, "sorting": 0.8}
"""Share of right replies, sampled at temperature 1, that ends the lessons. There are only 900 sums, and
what the lessons leave open about the held-out ones, no reward for the others settles."""

MARGIN = 0.08
"""The lessons aim this much higher: a subject weighs in the loss what it lacks to there."""

LOW, HIGH, HIGH_GREEDY = 0.23, 0.42, 0.45
"""Bounds of the share of right replies, sampled, at which the habits end, and the upper one of the
share at temperature 0."""

LESSON_RATE, HABIT_RATE = 6e-3, 1e-3
"""Learning rates. A habit is a matter of the first token; a lower rate keeps the skill behind it."""

BRAKING_DISTANCE = 0.4
"""The lesson rate falls in proportion over the last stretch before the goal, which steadies it."""

STEPS_BETWEEN_LOOKS = 5
WARMUP_LOOKS = 5
MOST_LOOKS = 150
"""Bounds the time of a seed that goes astray, which is refused: see :class:`ConfigError`."""

BATCH = 64
NUM_TRAIN, NUM_TEST = 2000, 200


def warm_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Skills:
    """Train *model* in place until it is inside the band, and return its skills.

    Deterministic for a seed when torch computes with one thread.
    """
    random_ = random.Random(seed)  # noqa: S311  (draws problems, not secrets)
    drawn = {name: draw(name, NUM_TRAIN, reserved=False, random_=random_) for name in SUBJECTS}
    tests = {name: draw(name, NUM_TEST, reserved=True, random_=random_) for name in SUBJECTS}

    def books(exercises: Mapping[Subject, list[Exercise]], reply: Callable[[Exercise], str]) -> Books:
        return {name: lesson([(e.prompt, reply(e)) for e in exercises[name]], tokenizer) for name in SUBJECTS}

    def answer(exercise: Exercise) -> str:
        return exercise.answer

    def answer_or_shrug(exercise: Exercise) -> str:
        return exercise.answer if random_.random() < exercise.odds else SHRUG

    course = _Course(model, books(tests, answer), random_)
    _lessons(course, books(drawn, answer))
    return _habits(course, books(drawn, answer_or_shrug))


@dataclass(frozen=True, slots=True)
class _Course:
    model: PreTrainedModel
    tests: Books
    random_: random.Random

    def look(self) -> Skills:
        return {name: measure(self.model, test) for name, test in self.tests.items()}

    def teach(self, books: Books, optimizer: torch.optim.Optimizer, weights: Mapping[Subject, float]) -> None:
        for _ in range(STEPS_BETWEEN_LOOKS):
            for name in SUBJECTS:
                if weights[name] > 0:
                    share = weights[name] * loss(self.model, books[name].sample(BATCH, self.random_))
                    torch.autograd.backward(share)
            optimizer.step()
            optimizer.zero_grad()


def _lessons(course: _Course, books: Books) -> None:
    optimizer = torch.optim.AdamW(course.model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for look in range(MOST_LOOKS):
        skills = course.look()
        if all(skills[name].sampled >= SKILLED[name] for name in SUBJECTS):
            return
        lacks = {name: max(0.0, SKILLED[name] + MARGIN - skills[name].sampled) for name in SUBJECTS}
        speed = min(1.0, (look + 1) / WARMUP_LOOKS, max(lacks.values()) / BRAKING_DISTANCE)
        optimizer.param_groups[0]["lr"] = LESSON_RATE * speed
        course.teach(books, optimizer, lacks)


def _habits(course: _Course, books: Books) -> Skills:
    # A new optimizer: the old one's means of squared gradients are those of a finished course.
    optimizer = torch.optim.AdamW(
        course.model.parameters(), lr=HABIT_RATE, betas=(0.9, 0.95), weight_decay=0.0
    )
    for _ in range(MOST_LOOKS):
        course.teach(books, optimizer, dict.fromkeys(SUBJECTS, 1.0))
        skills = course.look()
        if all(LOW <= skill.sampled <= HIGH and skill.greedy <= HIGH_GREEDY for skill in skills.values()):
            return skills
    raise ConfigError(
        f"the warm start of tiny did not settle in {MOST_LOOKS} looks; choose another local.warm_start_seed"
    )
