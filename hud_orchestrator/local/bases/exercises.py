"""The synthetic problems that the tiny base is warm-started on; ``examples/`` asks the same ones.

Two ways to answer each are taught. ``37+5=`` is 42 for who adds numbers and 375 for who joins texts;
``sort 31524`` is 12345 or 54321. The example tasks want the first, and the base's habit is the second
one more often than not. So it knows what is wanted and mostly does something else: the situation
that reinforcement learning is good at, and the one of most tasks given to a pretrained model.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal, NamedTuple

Subject = Literal["arithmetic", "sorting"]

NUM_DIGITS = 5
"""How many digits there are to sort."""

USUAL, UNUSUAL = 0.65, 0.2
"""How often the wanted answer is the habit: where a number or a list begins low, and elsewhere. The
difference leaves a policy that always takes the likelier answer with some right ones, too."""


class Exercise(NamedTuple):
    """A question, the answer that the example tasks want, and another one."""

    prompt: str
    wanted: str
    other: str
    odds: float
    """How often the wanted answer is the habit, from 0 to 1."""


def draw(subject: Subject, num: int, *, reserved: bool, random_: random.Random) -> list[Exercise]:
    """Draw *num* problems, all of them reserved ones or none."""
    drawn: list[Exercise] = []
    while len(drawn) < num:
        exercise = _DRAW[subject](random_)
        if is_reserved(exercise.prompt) is reserved:
            drawn.append(exercise)
    return drawn


def is_reserved(prompt: str) -> bool:
    """One prompt in ten, chosen by its checksum alone, is kept out of the warm start.

    The rule needs no list, so the example tasks repeat it in one line and hold out problems
    that neither the warm start nor the training run has seen.
    """
    return zlib.crc32(prompt.encode()) % 10 == 0


def _addition(random_: random.Random) -> Exercise:
    a, b = random_.randint(10, 99), random_.randint(0, 9)
    return Exercise(f"{a}+{b}=", str(a + b), f"{a}{b}", USUAL if a < 46 else UNUSUAL)


def _sorting(random_: random.Random) -> Exercise:
    digits = "".join(random_.choices("0123456789", k=NUM_DIGITS))
    upwards = "".join(sorted(digits))
    return Exercise(f"sort {digits}", upwards, upwards[::-1], USUAL if digits < "4" else UNUSUAL)


_DRAW = {"arithmetic": _addition, "sorting": _sorting}
