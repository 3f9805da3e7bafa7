"""Which task is the n-th: an endless stream that any position can be read from, without a state."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from hud_orchestrator.records import Task
from hud_orchestrator.rules.seeds import derive


class TaskOrder:
    """Epochs over a taskset, each in a random order of its own."""

    def __init__(self, tasks: Sequence[Task], *, seed: int, shuffle: bool) -> None:
        self._tasks = tuple(tasks)
        self._seed = seed
        self._shuffle = shuffle
        # Group numbers come nearly in order, so at most two epochs are in use at a time.
        self._epoch = lru_cache(maxsize=4)(self._permutation)

    def task(self, group: int) -> Task:
        """The task of group *group*, counted from 0."""
        epoch, place = divmod(group, len(self._tasks))
        return self._tasks[self._epoch(epoch)[place]]

    def _permutation(self, epoch: int) -> list[int]:
        places = list(range(len(self._tasks)))
        if self._shuffle:
            random.Random(derive(self._seed, "epoch", epoch)).shuffle(places)  # noqa: S311
        return places
