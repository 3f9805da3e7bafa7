"""Which task stands at a position instead, by how often the policy has solved each of them.

Every task has a weight from 0 to 1, and a position keeps its task with the chance that the weight says.
The positions that lose theirs are dealt out among the tasks of the same source by weight. With weights w
over N tasks, a task thus stands at a position with the probability

    w / N  +  (1 - sum(w) / N) * w / sum(w)  =  w / sum(w)

and with all weights 1 every epoch is what it would be without a curriculum.

What stands at a position depends on the seed, the position, and the groups that consumed steps have
tried: not on what was dispatched, nor on what was asked for before. So a run that was killed goes on
with the very tasks that it would have gone on with.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

from hud_orchestrator.records import Task, Visit
from hud_orchestrator.rules.order import Order
from hud_orchestrator.rules.seeds import SEED_BITS, derive

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: multiples of it, modulo 2**64, spread evenly however many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumRule:
    """What a solve rate does to a task."""

    near_half: bool
    skip_solved: float | None
    retire_hopeless: float | None
    after_visits: int
    window: int
    solved_at: float | None
    revisit: float

    def rate(self, rewards: Sequence[float]) -> float:
        """How well one group did, from 0 to 1."""
        if self.solved_at is not None:
            return fmean(reward >= self.solved_at for reward in rewards)
        return min(1.0, max(0.0, fmean(rewards)))


class Standings:
    """How well the policy does at every task, from the groups of consumed steps."""

    def __init__(self, rule: CurriculumRule) -> None:
        self._rule = rule
        self._rates: dict[str, deque[float]] = {}
        self._visits: Counter[str] = Counter()

    def saw(self, visit: Visit) -> None:
        """Count a group; one without a grade says nothing about its task."""
        if visit.rewards:
            rates = self._rates.setdefault(visit.slug, deque(maxlen=self._rule.window))
            rates.append(self._rule.rate(visit.rewards))
            self._visits[visit.slug] += 1

    def rate(self, slug: str) -> float | None:
        """Its solve rate, ``None`` before its first group."""
        rates = self._rates.get(slug)
        return fmean(rates) if rates else None

    def verdict(self, slug: str) -> str:
        """``new``, ``solved``, ``hopeless`` or ``learning``."""
        rate, rule = self.rate(slug), self._rule
        if rate is None:
            return "new"
        if self._visits[slug] >= rule.after_visits:
            if rule.skip_solved is not None and rate >= rule.skip_solved:
                return "solved"
            if rule.retire_hopeless is not None and rate <= rule.retire_hopeless:
                return "hopeless"
        return "learning"

    def weight(self, slug: str) -> float:
        """How often it is attempted, relative to a new task."""
        verdict, rate = self.verdict(slug), self.rate(slug)
        if verdict == "hopeless":
            return 0.0
        if verdict == "solved":
            return self._rule.revisit
        if rate is None or not self._rule.near_half:
            return 1.0
        # The variance of a coin with this rate, relative to a fair one: how much a group can teach.
        return max(4 * rate * (1 - rate), self._rule.revisit)


class Curriculum:
    """An order in which positions change hands."""

    def __init__(self, order: Order, rule: CurriculumRule, tasks: Sequence[Task], *, seed: int) -> None:
        self._order = order
        self._seed = seed
        self._tasks = tuple(tasks)
        self._standings = Standings(rule)
        self._dealt: dict[int, list[float]] = {}

    def consume(self, visits: Iterable[Visit]) -> None:
        """Learn from the groups of a step that is over."""
        for visit in visits:
            self._standings.saw(visit)
        self._dealt.clear()

    def task(self, group: int) -> Task:
        """The task of group *group*, as things stand."""
        kept = self._order.task(group)
        if derive(self._seed, "keep", group) < self._standings.weight(kept.slug) * 2**SEED_BITS:
            return kept
        peers = self._order.peers(group)
        sums = self._sums(peers)
        if sums[-1] <= 0:  # nothing is left to choose from
            return kept
        spread = (group * GOLDEN + derive(self._seed, "deal") * 2**33) % 2**64 / 2**64
        return peers[min(bisect(sums, spread * sums[-1]), len(peers) - 1)]

    def peers(self, group: int) -> Sequence[Task]:
        """What could stand there."""
        return self._order.peers(group)

    def counts(self) -> dict[str, int | float]:
        """How many tasks are new, learning, solved and hopeless, and the mean solve rate of those tried."""
        verdicts = Counter(self._standings.verdict(task.slug) for task in self._tasks)
        rates = [rate for task in self._tasks if (rate := self._standings.rate(task.slug)) is not None]
        named = {verdict: verdicts[verdict] for verdict in ("new", "learning", "solved", "hopeless")}
        return {**named, "solve_rate": fmean(rates) if rates else 0.0}

    def _sums(self, peers: Sequence[Task]) -> list[float]:
        # A source's tasks are one tuple for the whole run.
        known = self._dealt.get(id(peers))
        if known is None:
            known = list(accumulate(self._standings.weight(task.slug) for task in peers))
            self._dealt[id(peers)] = known
        return known
