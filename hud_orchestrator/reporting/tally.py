"""How many traces were told about, how many were not, and one line of log for each time of trouble."""

from __future__ import annotations

from collections import Counter

import anyio

from hud_orchestrator.logs import get_logger

QUIET_S = 30.0
"""Seconds without a drop after which the next one is news again."""

log = get_logger()


class Tally:
    """Counts into *counts*: ``reported``, ``dropped``, and ``without_steps``, which is part of reported."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self._last_drop: float | None = None

    def reported(self) -> None:
        """All that was to be said about a trace has arrived."""
        self.counts["reported"] += 1

    def without_steps(self) -> None:
        """The steps of a trace were left out, for they would have been too much to keep."""
        self.counts["without_steps"] += 1

    def dropped(self, reason: str, *, count: int = 1) -> None:
        """Something about *count* traces did not arrive, or was not even tried."""
        if not count:
            return
        self.counts["dropped"] += count
        now = anyio.current_time()
        if self._last_drop is None or now - self._last_drop > QUIET_S:
            log.warning("report.dropped", reason=reason, dropped=self.counts["dropped"])
        self._last_drop = now
