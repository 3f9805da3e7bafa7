"""Virtual time: a loop that never waits, but jumps to whatever comes next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable
from functools import partial
from typing import Any


class Deadlock(Exception):
    """Every task waits, and nothing that could wake one will ever happen."""


class Clock:
    """The world's time, and what will happen in it; it goes on when a process dies."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead_s = 0.0
        """Of the time of day, which somebody may set."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def wall(self) -> float:
        """The time of day, in seconds since 1970."""
        return 1.8e9 + self.now + self.ahead_s

    def after(self, delay_s: float, happen: Callable[[], None]) -> None:
        """Let *happen* be called *delay_s* from now."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), happen))

    def advance(self, timeout: float | None) -> None:
        """Go on to the next event, or by *timeout* when that is sooner; ``None``: to the next event."""
        until = None if timeout is None else self.now + timeout
        if not self._events or (until is not None and self._events[0][0] > until):
            if until is None:
                raise Deadlock
            self.now = until
            return
        self.now = max(self.now, self._events[0][0])
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()


class _Jump(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        self._clock.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """One process's loop, on the world's clock, with signals of the world's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handlers: dict[int, Callable[[], object]] = {}
        super().__init__(_Jump(clock))

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Let :meth:`signal` call it."""
        self._handlers[sig] = partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """No longer."""
        return self._handlers.pop(sig, None) is not None

    def signal(self, sig: int) -> None:
        """Let the process be sent a signal."""
        if sig in self._handlers:
            self.call_soon(self._handlers[sig])

    def time(self) -> float:
        """The world's time."""
        return self._clock.now
