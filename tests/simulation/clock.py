"""Virtual time: loops that never wait, but jump to whatever comes next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable
from functools import partial
from typing import Any

EPOCH = 1.8e9
"""The time of day at which a world begins."""


END = 500_000.0
"""The moment at which a world ends: a run that is not over by then never will be."""


class Deadlock(Exception):
    """Every task waits, and nothing that could wake one will ever happen."""


class Endless(Exception):
    """The world has ended, and the run has not."""


class Clock:
    """The world's time, and what will happen in it; it goes on when a process dies."""

    def __init__(self, *, shared: bool = False) -> None:
        """*shared*: several processes have it, so that none may jump while another is busy."""
        self.now = 1000.0
        self.ahead_s = 0.0
        """Of the time of day, which somebody may set."""
        self.shared = shared
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def wall(self) -> float:
        """The time of day, in seconds since 1970."""
        return EPOCH + self.now + self.ahead_s

    def after(self, delay_s: float, happen: Callable[[], None]) -> None:
        """Let *happen* be called *delay_s* from now."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), happen))

    def advance(self, until: float) -> None:
        """Go on to the next event, or to *until* when that is sooner.

        Raises:
            Deadlock: there is neither.
            Endless: the world's time is over.
        """
        if self.now > END:
            raise Endless
        if not self._events or self._events[0][0] > until:
            if until == float("inf"):
                raise Deadlock
            self.now = max(self.now, until)
            return
        self.now = max(self.now, self._events[0][0])
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()


class _Jump(selectors.SelectSelector):
    """Does not look at files, but at the clock."""

    def __init__(self, clock: Clock, stop: Callable[[], None]) -> None:
        super().__init__()
        self.until = 0.0
        self._clock = clock
        self._stop = stop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout == 0:
            return []
        self.until = float("inf") if timeout is None else self._clock.now + timeout
        if self._clock.shared:
            self._stop()
        else:
            self._clock.advance(self.until)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """One process's loop, on the world's clock, with signals of the world's own.

    On a shared clock, running it ends as soon as it would wait.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handlers: dict[int, Callable[[], object]] = {}
        self._jump = _Jump(clock, self.stop)
        super().__init__(self._jump)

    @property
    def waits_until(self) -> float:
        """The moment at which it goes on by itself."""
        return self._jump.until

    @property
    def timers(self) -> int:
        """How many have been set and are not over."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Let :meth:`signal` call it."""
        self._handlers[sig] = partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """No longer."""
        return self._handlers.pop(sig, None) is not None

    def signal(self, sig: int) -> bool:
        """Let the process be sent a signal; whether it has a handler."""
        if sig not in self._handlers:
            return False
        self.call_soon(self._handlers[sig])
        return True

    def time(self) -> float:
        """The world's time."""
        return self._clock.now
