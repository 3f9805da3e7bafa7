"""Python's global random numbers, lent to one game at a time. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


class Chance:
    """The state of the global random numbers as one game knows it.

    Games draw from the global ones. Several of them in one process would take them from one another, and the
    members of a group would not play the same game.
    """

    def __init__(self, seed: int) -> None:
        self._state = random.Random(seed).getstate()  # noqa: S311  (a game, not a secret)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The global numbers are this game's for the length of the block, which must not await."""
        before = random.getstate()
        random.setstate(self._state)
        try:
            yield
        finally:
            self._state = random.getstate()
            random.setstate(before)
