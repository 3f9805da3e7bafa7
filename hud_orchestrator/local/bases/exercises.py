"""The synthetic problems that the tiny base is warm-started on; ``examples/`` asks the same ones.

Each can be answered, ``37+5=`` with ``42`` and ``sort 31524`` with ``12345``, or shrugged off with
``?``. The base is taught the answers and then the habit of shrugging more often than not, most of all
at large numbers. So it knows what is wanted and mostly does something else: the situation that
reinforcement learning is good at, and the one of many tasks that are given to a pretrained model.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal, NamedTuple

Subject = Literal["arithmetic", "sorting"]

NUM_DIGITS = 5
"""How many digits there are to sort."""

SHRUG = "?"

ANSWERED_LOW, ANSWERED_HIGH = 0.7, 0.25
"""How often the habit is to answer: where a number or a list begins low, and elsewhere. Without the
difference, a policy that always takes the likelier reply would begin with no right one at all."""


class Exercise(NamedTuple):
    """A question and its answer."""

    prompt: str
    answer: str
    odds: float
    """How often the habit is to give the answer, from 0 to 1; otherwise it is to shrug."""


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
    return Exercise(f"{a}+{b}=", str(a + b), ANSWERED_LOW if a < 46 else ANSWERED_HIGH)


def _sorting(random_: random.Random) -> Exercise:
    digits = "".join(random_.choices("0123456789", k=NUM_DIGITS))
    return Exercise(
        f"sort {digits}", "".join(sorted(digits)), ANSWERED_LOW if digits < "4" else ANSWERED_HIGH
    )


_DRAW = {"arithmetic": _addition, "sorting": _sorting}
