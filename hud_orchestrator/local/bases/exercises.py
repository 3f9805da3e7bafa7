"""The synthetic problems that the tiny base is warm-started on; ``examples/`` asks the same ones."""

from __future__ import annotations

import random
import zlib
from typing import Literal, NamedTuple

Subject = Literal["arithmetic", "sorting"]

LARGEST_ADDEND = 49
"""Both addends of an arithmetic problem are 0 to this."""

NUM_DIGITS = range(2, 9)
"""How many digits there are to sort. The short lists are learnt first, so that a policy which is
right on a third of them is right for certain on some and has a chance on others."""


class Exercise(NamedTuple):
    """A question and its one right answer."""

    prompt: str
    answer: str


def draw(subject: Subject, num: int, *, reserved: bool, random_: random.Random) -> list[Exercise]:
    """Draw *num* problems, all of them reserved ones or none."""
    drawn: list[Exercise] = []
    while len(drawn) < num:
        exercise = _DRAW[subject](random_)
        if is_reserved(exercise.prompt) is reserved:
            drawn.append(exercise)
    return drawn


def is_reserved(prompt: str) -> bool:
    """One prompt in sixteen, chosen by its checksum alone, is kept out of the warm start.

    The rule needs no list, so the example tasks repeat it in one line and hold out problems
    that neither the warm start nor the training run has seen.
    """
    return zlib.crc32(prompt.encode()) % 16 == 0


def _addition(random_: random.Random) -> Exercise:
    a, b = random_.randint(0, LARGEST_ADDEND), random_.randint(0, LARGEST_ADDEND)
    return Exercise(f"{a}+{b}=", str(a + b))


def _sorting(random_: random.Random) -> Exercise:
    digits = "".join(random_.choices("0123456789", k=random_.choice(NUM_DIGITS)))
    return Exercise(f"sort {digits}", "".join(sorted(digits)))


_DRAW = {"arithmetic": _addition, "sorting": _sorting}
