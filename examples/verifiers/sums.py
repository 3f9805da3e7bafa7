"""An environment as people write it for the ``verifiers`` library; nothing here knows of us."""

from __future__ import annotations

import random
from collections.abc import Iterator

import verifiers.v1 as vf


class SumsConfig(vf.TasksetConfig):
    """How many problems, and of which seed."""

    problems: int = 600
    problem_seed: int = 0


class SumData(vf.TaskData):
    """A problem."""

    answer: str


class Sum(vf.Task[SumData, vf.State, vf.TaskConfig]):
    """Graded by two rewards with weights."""

    @vf.reward(weight=0.9)
    async def right(self, trace: vf.Trace) -> float:
        """Whether it is the sum."""
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.1)
    async def number(self, trace: vf.Trace) -> float:
        """Whether it is a number at all."""
        return float(trace.last_reply.isdigit())


class Sums(vf.Taskset[Sum, SumsConfig]):
    """Different sums of a number of two digits and one of one digit."""

    def load(self) -> Iterator[Sum]:
        """All problems, in the order of the seed."""
        pairs = [(a, b) for a in range(10, 100) for b in range(10)]
        random.Random(self.config.problem_seed).shuffle(pairs)
        for a, b in pairs[: self.config.problems]:
            yield Sum(SumData(prompt=f"{a}+{b}=", answer=str(a + b)), self.config.task)


__all__ = ["Sums"]
