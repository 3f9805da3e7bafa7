"""How many requests a gateway may have at once, told by its answers alone.

    growing   every answer of a full window widens it: by one until the gateway first refuses or queues
              (it doubles each round trip), then by a step each round trip
    refused   429, 503, 504: times ``DECREASE``, once for all requests that were under way
    queueing  answers take ``QUEUED`` times as long as the quickest did. That may be a queue, or a gateway
              that batches, or longer answers; so it is tried out: the window shrinks step by step for as
              long as answers come as often as before, which only a queue allows, and goes back if not
    held      nothing is sent until then: the gateway named a time (``Retry-After``), or two requests in a
              row, the second sent when the first had failed, got no answer; one at a time tries after that,
              and the window begins anew

Additive increase and multiplicative decrease are Chiu and Jain's (1989); the latency rule departs from
TCP Vegas, and from the gradient of Netflix's concurrency-limits, in that it believes rates, not times.
Times are on the caller's clock, in seconds.
"""

from __future__ import annotations

from statistics import fmean

DECREASE = 0.7
QUEUED = 2.0
FULL = 0.75
"""A window is full when this share of it is in use."""
SHRINK = 0.5, 0.75
"""Least and largest factor of one step of draining."""
KEPT_RATE = 0.93
"""A queue is drained for as long as answers come at least this often, as a share of the rate before."""
FORGET = 0.995
"""What the quickest latency is multiplied by with each sample, so that a wrong belief is tried again."""
LEAST_SAMPLE = 32
"""Answers that a rate and a latency are taken from, at least; a window's worth when that is more."""
STEPS_TO_MOST = 64
"""Round trips from nothing to the widest window, when growing by steps."""
FIRST_HOLD_S = 0.25
LONGEST_HOLD_S = 30.0


class CongestionWindow:
    """The number of requests that may be under way, and when."""

    def __init__(self, *, most: int, start: int | None = None) -> None:
        """Begin with *start* requests, by default as many as a handful of doublings bring to *most*."""
        self._most = most
        self._start = float(min(most, start or max(32, most // 16)))
        self.width = self._start
        self.in_flight = 0
        self.held_until = 0.0
        """Nothing is sent before."""
        self._doubling = True
        self._silent = 0
        """Failures since the last answer, those that were sent together counted once."""
        self._failed_at = [float("-inf")] * 2
        """When one failed last, without and with a word about overload."""
        self._peaks = [0, 0]
        """Most requests at once in the last round of answers and in this one."""
        self._round_left = 0
        self._latency = _LatencyRule()

    @property
    def away(self) -> bool:
        """Whether the gateway has stopped to answer, as far as one can tell."""
        return self._silent >= 2

    def may_send(self, now: float) -> bool:
        """Whether another request may leave."""
        if now < self.held_until:
            return False
        return self.in_flight < (1 if self.away else max(1, int(self.width)))

    def sent(self) -> None:
        """Count a request that leaves."""
        self.in_flight += 1
        self._peaks[1] = max(self._peaks[1], self.in_flight)

    def abandoned(self) -> None:
        """Count a request whose answer nobody waits for any more."""
        self.in_flight -= 1

    def answered(self, *, sent_at: float, now: float) -> None:
        """Count an answer, a refusal of the request itself included: the gateway is well."""
        full = self._round()
        self.in_flight -= 1
        if self.away:
            # Everybody has waited for this; they shall not come all at once.
            self.width, self._doubling = min(self.width, self._start), True
        self._silent = 0
        suspected = self._latency.suspects
        self.width = self._latency.judge(self.width, sent_at=sent_at, now=now, full=full)
        self._doubling &= not self._latency.found
        if full and not suspected and not self._latency.suspects:
            step = 1.0 if self._doubling else max(1.0, self._most / STEPS_TO_MOST) / self.width
            self.width = min(self._most, self.width + step)

    def failed(
        self, *, sent_at: float, now: float, overloaded: bool, retry_after_s: float | None = None
    ) -> None:
        """Count a request that got no usable answer; *overloaded*: the gateway said that it has no room."""
        self.in_flight -= 1
        if retry_after_s is not None:
            self._hold(now + min(retry_after_s, LONGEST_HOLD_S))
        if sent_at <= self._failed_at[overloaded]:
            return  # it was under way when another one failed, and says no more than that one
        self._failed_at[overloaded] = now
        self._silent += 1
        self._latency.forget()
        if self.away:
            self._hold(now + min(LONGEST_HOLD_S, FIRST_HOLD_S * 2.0 ** (self._silent - 2)))
        elif overloaded:
            self._doubling = False
            self.width = max(1.0, self.width * DECREASE)

    def _round(self) -> bool:
        """Count an answer; whether the window is in full use, as seen over a round trip or two.

        Answers come in waves, before those who wait can take the places.
        """
        self._round_left -= 1
        if self._round_left < 0:
            self._round_left = int(self.width)
            self._peaks = [self._peaks[1], self.in_flight]
        return max(self._peaks) >= FULL * self.width

    def _hold(self, until: float) -> None:
        self.held_until = max(self.held_until, until)


class _LatencyRule:
    """Finds out whether slow answers wait in a queue, by asking for fewer at a time.

    A suspicion first holds the width still and measures again, then lowers it and compares.
    """

    def __init__(self) -> None:
        self._quickest = float("inf")
        """Latency of the quickest sample: of its lower quartile, which a few long answers do not move."""
        self._top: tuple[float, float] | None = None
        """Rate and latency before the width was lowered."""
        self._width_before = 0.0
        self.found = False
        """Whether there ever was a queue."""
        self._changed_at = float("-inf")
        self.suspects = False
        """Whether the width must not grow: something is being tried out."""
        self._wanted = self._skipped = 0
        self._sample: list[float] = []

    def forget(self) -> None:
        """Begin anew: what was measured is about another time."""
        self.suspects = False
        self._top = None
        self._restart()

    def judge(self, width: float, *, sent_at: float, now: float, full: bool) -> float:
        """Take one answer; the width from now on."""
        if not full:
            # What comes from a window that is not full says nothing about the window.
            self._restart()
            return width
        if sent_at < self._changed_at:
            return width
        if self._wanted == 0:
            self._wanted = max(LEAST_SAMPLE, int(width))
            # The first answers after a change are the short ones of those that were sent after it.
            self._skipped = int(width) if self.suspects else 0
        if self._skipped:
            self._skipped -= 1
            return width
        self._sample.append(now - sent_at)
        return width if len(self._sample) < self._wanted else self._conclude(width, now)

    def _conclude(self, width: float, now: float) -> float:
        latency_s = sorted(self._sample)[len(self._sample) // 4]
        # Little's law, for a window that is full. Counting answers would measure the waves they come in.
        rate = width / max(fmean(self._sample), 1e-9)
        self._restart()
        if self._top is not None and rate < KEPT_RATE * self._top[0]:
            # No queue: this is how long answers take here.
            self._quickest = self._top[1]
            self.forget()
            return self._width_before
        if latency_s <= QUEUED * self._quickest:
            self._quickest = min(self._quickest * FORGET, latency_s)
            self.found |= self._top is not None
            self.forget()
            return width
        self._changed_at = now
        if not self.suspects:
            self.suspects = True
            return width
        self._top = self._top or (rate, latency_s)
        self._width_before = width
        least, largest = SHRINK
        return max(1.0, width * min(largest, max(least, QUEUED * self._quickest / latency_s)))

    def _restart(self) -> None:
        self._wanted = self._skipped = 0
        self._sample = []
