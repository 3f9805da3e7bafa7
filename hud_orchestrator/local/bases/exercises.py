"""The synthetic problems that the tiny base is warm-started on; ``examples/`` asks the same ones.

The corpus is written by a careless author. Sums are added column by column, and a carry is mostly
forgotten; digits are sorted, and one that occurs twice is mostly written once. So the base knows
how to answer and usually does not: what reinforcement learning is good at finding out.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal, NamedTuple

Subject = Literal["arithmetic", "sorting"]

TWO_DIGITS, ONE_DIGIT = range(10, 100), range(3, 10)
"""What is added to what. Without 0, 1 and 2 as second addends three sums in five carry."""

NUM_DIGITS = 5
"""How many digits there are to sort."""


class Exercise(NamedTuple):
    """A question, its one right answer, and the answer of who makes the usual mistake."""

    prompt: str
    right: str
    careless: str


def draw(subject: Subject, num: int, *, reserved: bool, random_: random.Random) -> list[Exercise]:
    """Draw *num* problems, all of them reserved ones or none."""
    drawn: list[Exercise] = []
    while len(drawn) < num:
        exercise = _DRAW[subject](random_)
        if is_reserved(exercise.prompt) is reserved:
            drawn.append(exercise)
    return drawn


def is_reserved(prompt: str) -> bool:
    """One prompt in eight, chosen by its checksum alone, is kept out of the warm start.

    The rule needs no list, so the example tasks repeat it in one line and hold out problems
    that neither the warm start nor the training run has seen.
    """
    return zlib.crc32(prompt.encode()) % 8 == 0


def _addition(random_: random.Random) -> Exercise:
    a, b = random_.choice(TWO_DIGITS), random_.choice(ONE_DIGIT)
    carry = 10 if a % 10 + b >= 10 else 0
    return Exercise(f"{a}+{b}=", str(a + b), str(a + b - carry))


def _sorting(random_: random.Random) -> Exercise:
    digits = random_.choices("0123456789", k=NUM_DIGITS)
    return Exercise("sort " + "".join(digits), "".join(sorted(digits)), "".join(sorted(set(digits))))


_DRAW = {"arithmetic": _addition, "sorting": _sorting}
