"""Retry policies of reads, as values, and a loop that follows one. Training calls have none and take none."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from hud_orchestrator.errors import ServiceBusy, ServiceError, ServiceUnreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a read is tried, and how long it waits in between."""

    attempts: int
    """Tries in all, at least 1."""
    first_wait_s: float
    """Wait after the first failure; doubled after each further one."""
    longest_wait_s: float
    """No wait is longer, whatever the service asks for."""

    def wait_s(self, failures: int, *, asked_s: float | None) -> float:
        """Seconds to wait after *failures* failures: what the service asked for, else backoff with jitter."""
        if asked_s is not None:
            return min(asked_s, self.longest_wait_s)
        backoff = min(self.first_wait_s * 2.0 ** (failures - 1), self.longest_wait_s)
        # Jitter spreads clients that failed together; it decides nothing that a seed must repeat.
        return backoff * random.uniform(0.75, 1.0)  # noqa: S311


AT_START = Retry(attempts=3, first_wait_s=0.5, longest_wait_s=2)
"""While nothing depends on the run yet, a wrong address should be said quickly."""

ONCE = Retry(attempts=1, first_wait_s=0, longest_wait_s=0)
"""For a caller that decides itself whether to ask again."""

READ = Retry(attempts=6, first_wait_s=1, longest_wait_s=30)
"""About half a minute: long enough for a deployment, short enough for a person."""

SAMPLING = Retry(attempts=8, first_wait_s=0.25, longest_wait_s=30)
"""A rollout's own deadline ends it earlier."""


async def patiently(
    ask: Callable[[], Awaitable[T]], *, failed: Callable[[ServiceError], None] = lambda _: None
) -> T:
    """What *ask* returns, which itself asks once, tried as often as a read is; *failed* is told each time.

    Raises:
        ServiceUnreachable, ServiceBusy: no usable answer in all of the tries.
    """
    failures = 0
    while True:
        try:
            return await ask()
        except (ServiceUnreachable, ServiceBusy) as failure:
            failures += 1
            failed(failure)
            if failures >= READ.attempts:
                raise
            asked_s = failure.facts.get("retry_after_s")
            await anyio.sleep(READ.wait_s(failures, asked_s=asked_s if isinstance(asked_s, float) else None))
