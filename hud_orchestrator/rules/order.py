"""Which task is the n-th: an endless stream that any position can be read from, without a state."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from hud_orchestrator.records import Task
from hud_orchestrator.rules.seeds import SEED_BITS, derive


class Order(Protocol):
    """An endless stream of tasks."""

    def task(self, group: int) -> Task:
        """The task of group *group*, counted from 0."""
        ...

    def peers(self, group: int) -> Sequence[Task]:
        """The tasks that could as well stand at this position: those of the same source."""
        ...


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

    def peers(self, group: int) -> Sequence[Task]:  # noqa: ARG002  (every position is alike)
        """The whole taskset."""
        return self._tasks

    def _permutation(self, epoch: int) -> list[int]:
        places = list(range(len(self._tasks)))
        if self._shuffle:
            random.Random(derive(self._seed, "epoch", epoch)).shuffle(places)  # noqa: S311
        return places


class MixedOrder:
    """Several orders, interleaved by weight.

    The first order takes its share p of the positions: of the first n, floor(n * p + phase) of them, with
    a phase from the seed. That is within one of n * p for every n, so every batch has its share, and both
    whose turn position n is and how many it had before can be told without counting. What the first
    leaves is a stream of positions again, which the others share in the same way.
    """

    def __init__(self, orders: Sequence[Order], *, weights: Sequence[float], seed: int) -> None:
        self._first = orders[0]
        self._others: Order | None = None
        if len(orders) > 1:
            self._others = MixedOrder(orders[1:], weights=weights[1:], seed=derive(seed, "others"))
        # Exact, so that position two billion is as right as position two.
        exact = [Fraction(str(weight)) for weight in weights]
        self._share = exact[0] / sum(exact)
        self._phase = Fraction(derive(seed, "phase"), 2**SEED_BITS)

    def task(self, group: int) -> Task:
        """The task of group *group*, counted from 0."""
        order, position = self._at(group)
        return order.task(position)

    def peers(self, group: int) -> Sequence[Task]:
        """The tasks of the order whose turn it is."""
        order, position = self._at(group)
        return order.peers(position)

    def _at(self, group: int) -> tuple[Order, int]:
        before = self._taken(group)
        if self._others is None or self._taken(group + 1) > before:
            return self._first, before if self._others else group
        return self._others, group - before

    def _taken(self, count: int) -> int:
        """How many of the first *count* positions are the first order's."""
        return int(count * self._share + self._phase)
