"""The synthetic problems that the tiny base is warm-started on; ``examples/`` asks the same ones.

The corpus has habits of its own. ``37+5=`` is mostly read as numbers while the first one is small,
and as texts to be joined, 375, when it is large; digits are mostly sorted upwards when the first one
is small and downwards otherwise. So the base knows how to answer as the example tasks want it, and
more often than not answers in another way: what reinforcement learning is good at finding out.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal, NamedTuple

Subject = Literal["arithmetic", "sorting"]

USUAL, UNUSUAL = 0.65, 0.2
"""How often the corpus gives the wanted answer where that is its habit, and where it is not."""

NUM_DIGITS = 5
"""How many digits there are to sort."""


class Exercise(NamedTuple):
    """A question, the answer that the example tasks want, and the other one of the corpus."""

    prompt: str
    wanted: str
    other: str
    odds: float
    """How often the corpus gives the wanted answer, from 0 to 1."""


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
    a, b = random_.randint(10, 99), random_.randint(0, 9)
    return Exercise(f"{a}+{b}=", str(a + b), f"{a}{b}", USUAL if a < 46 else UNUSUAL)


def _sorting(random_: random.Random) -> Exercise:
    digits = random_.choices("0123456789", k=NUM_DIGITS)
    upwards = "".join(sorted(digits))
    return Exercise("sort " + "".join(digits), upwards, upwards[::-1], USUAL if digits[0] < "4" else UNUSUAL)


_DRAW = {"arithmetic": _addition, "sorting": _sorting}
