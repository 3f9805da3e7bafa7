"""Run both loops in turn against one paced gateway, and print what they reached and cost.

Each measurement is a process of its own, and each row is the median of its rounds; the loops take turns, so
that a machine whose speed drifts does not favour one. The SDK's rows need the environment that
``make interop`` sets up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rollouts.plan import Plan

ROOT = Path(__file__).parents[2]
SDK = ROOT / ".venv-interop" / "bin" / "python"
LATENCY_S = 0.2
ROUNDS = 3
CROWDS = (32, 128, 256, 512, 1000)
"""Rollouts in flight of the second table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: whose loop, and what it does."""

    ours: bool
    plan: Plan

    @property
    def name(self) -> str:
        """The row's first cells."""
        return f"{'hud-orchestrate' if self.ours else 'Taskset.run'}, {self.plan.placement}"


def cases(port: int) -> list[Case]:
    """The comparison; sizes are such that each takes some seconds."""
    found = []
    for tools in (False, True):
        for placement, ours, theirs in (
            ("in-process", (64, 2048), (64, 512)),
            ("local", (64, 2048), None),
            ("subprocess", (4, 24), (4, 16)),
        ):
            for is_ours, sizes in ((True, ours), (False, theirs)):
                if sizes is None or (not is_ours and not SDK.exists()):
                    continue
                concurrency, rollouts = sizes
                rollouts //= 8 if tools and placement != "subprocess" else 1
                plan = Plan(
                    port=port, placement=placement, tools=tools, concurrency=concurrency, rollouts=rollouts
                )
                found.append(Case(ours=is_ours, plan=plan))
    return found


def main() -> None:
    """Measure, then print."""
    console = Console()
    with _gateway() as port:
        _compare(cases(port), console)
        _crowd(port, console)
    if not SDK.exists():
        console.print("the SDK's rows are left out: make interop sets up its environment")


def _compare(rows: Sequence[Case], console: Console) -> None:
    found: defaultdict[Case, list[Mapping[str, Any]]] = defaultdict(list)
    for _ in range(ROUNDS):
        for case in rows:
            found[case].append(_measured(case))
    table = Table(
        "loop, environment", "turns", "at once", "rollouts/s", "CPU ms each", "of it the loop's own"
    )
    for case in rows:
        seen = found[case]
        table.add_row(
            case.name,
            "8, a tool" if case.plan.tools else "1",
            str(case.plan.concurrency),
            *(f"{median(one[key] for one in seen):.2f}" for key in ("per_s", "cpu_ms", "own_cpu_ms")),
        )
    console.print(table)


def _crowd(port: int, console: Console) -> None:
    """Many rollouts in flight: how near the paced limit, and what stands in the way."""
    table = Table("at once", "limit/s", "reached", "of a core", "KiB each in flight", "loop lag p99, ms")
    plan = Plan(port=port, placement="in-process", tools=False, concurrency=1, rollouts=1)
    for crowd in CROWDS:
        case = Case(ours=True, plan=replace(plan, concurrency=crowd, rollouts=min(crowd * 30, 6000)))
        seen = [_measured(case) for _ in range(ROUNDS)]
        limit = crowd / LATENCY_S
        table.add_row(
            str(crowd),
            f"{limit:.0f}",
            f"{median(one['per_s'] for one in seen) / limit:.0%}",
            f"{median(one['own_cpu_ms'] * one['per_s'] / 1000 for one in seen):.0%}",
            f"{median(one['kb_in_flight'] for one in seen):.0f}",
            f"{median(one['lag_p99_ms'] for one in seen):.1f}",
        )
    console.print(table)


def _measured(case: Case) -> Mapping[str, Any]:
    python, module = (sys.executable, "ours") if case.ours else (str(SDK), "theirs")
    command = [python, "-m", f"benchmarks.rollouts.{module}", json.dumps(asdict(case.plan))]
    done = subprocess.run(
        command, cwd=ROOT, env=_environ(), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr.strip()[-2000:]}")
    answer: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


@contextmanager
def _gateway() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.rollouts.gateway", str(LATENCY_S)]
    with subprocess.Popen(command, cwd=ROOT, env=_environ(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
