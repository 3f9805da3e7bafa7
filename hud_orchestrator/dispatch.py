"""Who may begin an attempt, and when: a slot, a slot of its environment, and nothing known to be broken.

    ticket -> cleared? -> a slot of its environment -> one of all slots -> still cleared? -> attempt
                ^                                                             |  no
                +-------------------------------------------------------------+

An attempt waits for its environment without a slot, so a fragile environment holds up nobody else. What
waits is bounded by the permits of its group, and ends with whoever waits: a drain or the last batch cancels
it. Training and evaluation come through here alike.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio

from hud_orchestrator.errors import RunFailed, ServiceUnreachable
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Group, Outcome, Rollout
from hud_orchestrator.rules.breaker import (
    AGENT,
    FIRST_TRIES,
    GATEWAY,
    Breaker,
    BreakerRule,
    environment,
    evidence,
)

NEVER = BreakerRule(window=1, least=2)
"""A rule by which nothing is ever concluded."""

log = get_logger()


@dataclass(slots=True)
class Passage:
    """One attempt on its way."""

    rounds: Mapping[str, int]
    rollout: Rollout | None = field(default=None)
    """To be set: what became of it. Left out, it is evidence of nothing."""


@dataclass(slots=True)
class _Pauses:
    """How long attempts in one environment have been paused, whatever for."""

    spent: float = 0.0
    since: float | None = None

    def see(self, now: float, *, paused: bool) -> None:
        if paused and self.since is None:
            self.since = now
        elif not paused:
            self.spent, self.since = self.seconds(now), None

    def seconds(self, now: float) -> float:
        return self.spent if self.since is None else self.spent + now - self.since


class Dispatch:
    """Lets attempts begin."""

    def __init__(
        self,
        *,
        concurrency: int,
        environments: Mapping[str, int] | None = None,
        rule: BreakerRule = NEVER,
        board: Scoreboard | None = None,
    ) -> None:
        """Let *concurrency* attempts run at once, and of those of one environment no more than it has.

        Args:
            concurrency: attempts at once.
            environments: attempts at once by environment; those not in it have all.
            rule: when to pause.
            board: where a pause is shown, and the attempts in flight.
        """
        self._slots = anyio.CapacityLimiter(concurrency)
        self._of_environment = {
            name: anyio.CapacityLimiter(most) for name, most in (environments or {}).items()
        }
        self._rule = rule
        self._board = board
        self._breakers: dict[str, Breaker] = {}
        self._involved: dict[str, list[tuple[str, Breaker]]] = {}
        """By environment: the breakers that its attempts pass. Every attempt asks several times."""
        self._pauses: dict[str, _Pauses] = {}
        """By environment, for as long as there are breakers that its attempts pass."""
        self._why: dict[str, str] = {}
        self._changed = anyio.Event()
        self._fruitless = 0
        self._fruitless_since: float | None = None
        self._fruitful = False

    @asynccontextmanager
    async def place(self, name: str) -> AsyncGenerator[Passage, None]:
        """A place for one attempt in the environment *name*, as soon as it may begin.

        Raises:
            RunFailed, ServiceUnreachable: what was broken before has stayed so for too long.
        """
        while True:
            await self._cleared(name)
            async with AsyncExitStack() as slots:
                if name in self._of_environment:
                    await slots.enter_async_context(self._of_environment[name])
                await slots.enter_async_context(self._slots)
                if not self._admits(name):
                    continue
                with self._passage(name) as passage:
                    yield passage
                return

    def paused(self, name: str) -> bool:
        """Whether attempts in the environment *name* wait for something to be mended."""
        return any(breaker.paused_at is not None for _, breaker in self._of(name))

    def paused_s(self, name: str) -> float:
        """For how long attempts in the environment *name* have been paused, all pauses together."""
        self._of(name)
        return self._pauses[name].seconds(anyio.current_time())

    def batch_was_fruitful(self) -> None:
        """Say that groups were graded."""
        self._fruitless, self._fruitless_since, self._fruitful = 0, None, True

    def batch_was_fruitless(self, step: int, last: Group) -> None:
        """Say that every group tried for *step* failed, although attempts may have succeeded.

        Raises:
            RunFailed, ServiceUnreachable: several times in a row, without an end.
        """
        now = anyio.current_time()
        self._fruitless += 1
        since = self._fruitless_since = now if self._fruitless_since is None else self._fruitless_since
        failed = next((r for r in last.rollouts if r.reward is None), last.rollouts[-1])
        give_up_after_s = self._rule.give_up_after_s if self._fruitful else 0.0
        if self._fruitless >= FIRST_TRIES and now - since >= give_up_after_s:
            raise hopeless(f"every group failed in {self._fruitless} tries at step {step}", failed)
        cause = GATEWAY if failed.outcome is Outcome.GATEWAY_FAILED else environment(failed.ticket.task.env)
        breaker = self._breaker(cause)
        if breaker.paused_at is None:
            breaker.pause(now=now, at_least=self._fruitless)
            self._paused(cause, breaker, f"every group of step {step} failed", failed)

    async def _cleared(self, name: str) -> None:
        while not self._admits(name):
            now = anyio.current_time()
            ahead = [breaker.next_try_at for _, breaker in self._of(name) if breaker.next_try_at > now]
            with anyio.move_on_at(max(ahead, default=float("inf"))):
                await self._changed.wait()

    def _admits(self, name: str) -> bool:
        now = anyio.current_time()
        return all(breaker.admits(now) for _, breaker in self._of(name))

    @contextmanager
    def _passage(self, name: str) -> Iterator[Passage]:
        passage = Passage({cause: breaker.begin() for cause, breaker in self._of(name)})
        try:
            if self._board is None:
                yield passage
            else:
                with self._board.in_flight():
                    yield passage
        finally:
            self._end(passage)

    def _end(self, passage: Passage) -> None:
        now, rollout = anyio.current_time(), passage.rollout
        found = {} if rollout is None else evidence(rollout)
        probing = any(self._breakers[cause].paused_at is not None for cause in passage.rounds)
        for cause, began_in in passage.rounds.items():
            breaker = self._breakers[cause]
            paused_at = breaker.paused_at
            if breaker.end(began_in, found.get(cause), now=now):
                assert rollout is not None  # there was evidence
                if breaker.paused_at is None:
                    self._resumed(cause, now - (paused_at or now))
                else:
                    self._paused(cause, breaker, _reason(breaker), rollout)
        if probing:
            self._tell()

    def _paused(self, cause: str, breaker: Breaker, reason: str, last: Rollout) -> None:
        now = anyio.current_time()
        if breaker.hopeless(now):
            assert breaker.paused_at is not None
            raise hopeless(f"{cause}: {reason}, for {now - breaker.paused_at:.0f} s by now", last)
        wait_s = round(breaker.next_try_at - now, 2)
        log.warning(
            "dispatch.paused", cause=cause, reason=reason, last=last.detail, wait_s=wait_s, waits_for="probes"
        )
        self._why[cause] = f"{cause}: {reason} ({last.detail or last.outcome}); next try after {wait_s:g} s"
        self._record("paused", cause, reason=reason, wait_s=wait_s)

    def _resumed(self, cause: str, after_s: float) -> None:
        log.info("dispatch.resumed", cause=cause, after_s=round(after_s, 2))
        self._why.pop(cause, None)
        self._record("resumed", cause, after_s=round(after_s, 2))

    def _record(self, change: str, cause: str, **facts: object) -> None:
        now = anyio.current_time()
        for name, pauses in self._pauses.items():
            pauses.see(now, paused=self.paused(name))
        if self._board is not None:
            self._board.paused = "; ".join(self._why.values()) or None
            self._board.record({"kind": "dispatch", "change": change, "cause": cause, **facts})
        self._tell()

    def _tell(self) -> None:
        # Wake today's waiters, then give tomorrow's an event of their own.
        self._changed.set()
        self._changed = anyio.Event()

    def _of(self, name: str) -> list[tuple[str, Breaker]]:
        if name not in self._involved:
            causes = (environment(name), GATEWAY, AGENT)
            self._involved[name] = [(cause, self._breaker(cause)) for cause in causes]
            self._pauses[name] = _Pauses()
            self._pauses[name].see(anyio.current_time(), paused=self.paused(name))
        return self._involved[name]

    def _breaker(self, cause: str) -> Breaker:
        if cause not in self._breakers:
            self._breakers[cause] = Breaker(self._rule)
        return self._breakers[cause]


def _reason(breaker: Breaker) -> str:
    failed, count = breaker.failed
    again = ", and another try did too" if breaker.pauses > 1 else ""
    return f"{failed} of {count} attempts failed{again}"


def hopeless(what: str, last: Rollout) -> RunFailed | ServiceUnreachable:
    """What ends a run in which nothing is graded, by what the last attempt says."""
    reason = last.detail or last.outcome
    text = f"{what}, the last with: {reason}; mend it and run again"
    return ServiceUnreachable(text) if last.outcome is Outcome.GATEWAY_FAILED else RunFailed(text)
