"""What a stretch of work cost: wall time, processor time of a process tree, memory, the loop's lag."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICK_S = 0.005
"""Between two looks at how late the loop is."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Cost:
    """Filled when the stretch is over."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of this process and everything below it."""
    own_cpu_s: float = 0.0
    peak_mb: float = 0.0
    """Largest resident size of this process, above what it was compared with."""
    lags_s: list[float] = field(default_factory=list)

    @property
    def lag_p99_ms(self) -> float:
        """How late the loop woke a sleeper, at the 99th percentile."""
        ordered = sorted(self.lags_s)
        return ordered[int(len(ordered) * 0.99)] * 1000 if ordered else 0.0


@asynccontextmanager
async def costing(*, above_mb: float = 0) -> AsyncGenerator[Cost, None]:
    """Measure the block; memory above *above_mb*."""
    cost = Cost()
    watcher = asyncio.create_task(_watch(cost, above_mb))
    began, tree, own = time.perf_counter(), tree_cpu_s(), time.process_time()
    try:
        yield cost
    finally:
        cost.wall_s = time.perf_counter() - began
        cost.cpu_s, cost.own_cpu_s = tree_cpu_s() - tree, time.process_time() - own
        watcher.cancel()


async def _watch(cost: Cost, above_mb: float) -> None:
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        cost.lags_s.append(max(0.0, time.perf_counter() - due))
        if len(cost.lags_s) % 20 == 0:
            cost.peak_mb = max(cost.peak_mb, resident_mb() - above_mb)


def resident_mb() -> float:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def tree_cpu_s() -> float:
    """Seconds of processor time of this process and its descendants, those that were reaped included."""
    children: dict[int, list[int]] = {}
    spent: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid, parent = int(entry.name), int(fields[1])
        children.setdefault(parent, []).append(pid)
        # user, system, and both of children that were waited for
        spent[pid] = sum(int(text) for text in fields[11:15])
    total, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0)
        waiting += children.get(pid, [])
    return total / _TICKS_PER_S
