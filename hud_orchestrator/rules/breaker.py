"""When to stop beginning attempts because they would fail, and when to go on.

    closed      every attempt may begin; the newest ones are counted
    paused      too many of them failed: none may begin until the pause is over
    probing     as many as there are probes may begin; all of them good: closed; one failed: paused again,
                for twice as long

A breaker is about one cause. An attempt is evidence about every cause that it got to: an environment that
did not start says nothing about the gateway.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from hud_orchestrator.records import Outcome, Rollout

GATEWAY = "the gateway"
AGENT = "the agent"

FIRST_TRIES = 3
"""Pauses in a row after which something that has never worked is given up."""


class Evidence(Enum):
    """What an attempt says about one of its causes."""

    GOOD = "good"
    """It did its part."""
    FAILED = "failed"
    """It failed in a way that passes, or is mended from outside: attempts wait for that."""
    UNFIT = "unfit"
    """It failed in a way that may be the task's fault. It counts when there is nothing else."""


ENVIRONMENT_FAULTS = {
    Outcome.NOT_STARTED: Evidence.FAILED,
    Outcome.LOST: Evidence.FAILED,
    Outcome.TOOL_FAILURE: Evidence.FAILED,
    Outcome.GRADER_FAILED: Evidence.UNFIT,
    Outcome.UNGRADED: Evidence.UNFIT,
}
GATEWAY_FAULTS = {Outcome.GATEWAY_FAILED: Evidence.FAILED, Outcome.GATEWAY_REFUSED: Evidence.UNFIT}


def environment(name: str) -> str:
    """The cause that the environment *name* is."""
    return f"environment {name!r}"


def evidence(rollout: Rollout) -> dict[str, Evidence]:
    """What *rollout* says about its causes."""
    outcome, found = rollout.outcome, {}
    if outcome in ENVIRONMENT_FAULTS:
        found[environment(rollout.ticket.task.env)] = ENVIRONMENT_FAULTS[outcome]
    elif rollout.reward is not None:
        found[environment(rollout.ticket.task.env)] = Evidence.GOOD
    if outcome in GATEWAY_FAULTS:
        found[GATEWAY] = GATEWAY_FAULTS[outcome]
    elif rollout.samples or outcome.clean:
        found[GATEWAY] = Evidence.GOOD
    if outcome is Outcome.AGENT_ERROR:
        found[AGENT] = Evidence.UNFIT
    elif outcome.clean:
        found[AGENT] = Evidence.GOOD
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """The numbers of a breaker."""

    share: float = 0.5
    """Of the newest attempts, the share that may fail before there is a pause."""
    window: int = 16
    """The newest attempts are this many."""
    least: int = 8
    """Nothing is concluded from fewer."""
    probes: int = 2
    pause_s: float = 2.0
    """The first pause; doubled each time."""
    longest_pause_s: float = 60.0
    give_up_after_s: float = 900.0
    """What stays broken for so long is given up; what never worked, after :data:`FIRST_TRIES` pauses."""


class Breaker:
    """Decides for one cause whether attempts may begin."""

    def __init__(self, rule: BreakerRule) -> None:
        self._rule = rule
        self._recent: deque[Evidence] = deque(maxlen=rule.window)
        self._round = 0
        """Grows with every change, so that what began before a change is no evidence after it."""
        self._probes_out = self._probes_good = 0
        self._worked = False
        self.pauses = 0
        """Pauses in a row."""
        self.paused_at: float | None = None
        """When the first of them began; ``None``: closed."""
        self.next_try_at = 0.0

    def admits(self, now: float) -> bool:
        """Whether an attempt may begin."""
        if self.paused_at is None:
            return True
        return now >= self.next_try_at and self._probes_out + self._probes_good < self._rule.probes

    def begin(self) -> int:
        """Count an attempt that begins; what :meth:`end` wants to be told."""
        if self.paused_at is not None:
            self._probes_out += 1
        return self._round

    def end(self, began_in: int, found: Evidence | None, *, now: float) -> bool:
        """Count an attempt that ended; whether the breaker changed: paused (again), or closed."""
        if began_in != self._round:
            return False
        if self.paused_at is not None:
            self._probes_out -= 1
            return self._probed(found, now)
        if found is not None:
            self._recent.append(found)
            self._worked |= found is Evidence.GOOD
        if found in (None, Evidence.GOOD) or not self._sick:
            return False
        self.pause(now=now)
        return True

    def pause(self, *, now: float, at_least: int = 1) -> None:
        """Let nothing begin for a while: as for the *at_least*-th pause in a row, or longer."""
        self._next_round()
        if self.paused_at is None:
            self.paused_at, self.pauses = now, at_least - 1
        self.pauses += 1
        self.next_try_at = now + min(
            self._rule.longest_pause_s, self._rule.pause_s * 2.0 ** min(self.pauses - 1, 30)
        )

    def hopeless(self, now: float) -> bool:
        """Whether it has been broken for too long to go on waiting."""
        if self.paused_at is None or self.pauses < FIRST_TRIES:
            return False
        return not self._worked or now - self.paused_at >= self._rule.give_up_after_s

    @property
    def failed(self) -> tuple[int, int]:
        """How many of how many of the newest attempts failed, when it was closed last."""
        return sum(one is not Evidence.GOOD for one in self._recent), len(self._recent)

    @property
    def _sick(self) -> bool:
        count = len(self._recent)
        if count < self._rule.least:
            return False
        return (
            self._recent.count(Evidence.FAILED) >= self._rule.share * count
            or Evidence.GOOD not in self._recent
        )

    def _probed(self, found: Evidence | None, now: float) -> bool:
        if found is None:
            return False
        if found is not Evidence.GOOD:
            self.pause(now=now)
            return True
        self._probes_good += 1
        if self._probes_good < self._rule.probes:
            return False
        self._next_round()
        self._recent.clear()
        self._worked = True
        self.paused_at, self.pauses = None, 0
        return True

    def _next_round(self) -> None:
        self._round += 1
        self._probes_out = self._probes_good = 0
