"""``python -m tests.simulation [FIRST COUNT] [--jobs N] [--seconds S]``: run seeds, and say which broke.

Without seeds they are fresh ones, by the time of day. SIGINT and SIGTERM end it after the seeds in hand.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, fields
from itertools import count as counting

from tests.simulation.world import simulate

BATCH = 20
"""Seeds that a process runs at a time."""


@dataclass(slots=True)
class Tally:
    """Sums over runs."""

    runs: int = 0
    broken: int = 0
    lives: int = 0
    kills: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    """Lives that ended by themselves, by exit code."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def told(self, took_s: float) -> str:
        """All of it in a line, of runs that took *took_s* seconds."""
        cpu_s = max(self.cpu_s, 0.01)
        return (
            f"{self.runs} runs, {self.broken} broken, {self.lives} lives, {self.kills} kills, "
            f"{self.runs / took_s * 60:.0f} runs a minute, {self.runs / cpu_s * 60:.0f} a minute of a core, "
            f"{self.simulated_s / took_s:.0f} simulated seconds a second; "
            f"exit codes {', '.join(f'{code}: {count}' for code, count in sorted(self.codes.items()))}"
        )


def run(seeds: range) -> Tally:
    """Run *seeds*; what breaks is printed with the line that repeats it."""
    tally, began = Tally(), time.process_time()
    gc.collect()  # worlds that were still in use when the collection after their run came
    for seed in seeds:
        tally.runs += 1
        try:
            report = simulate(seed)
        except Exception as error:  # a bug of the product is a finding, whatever it raises
            tally.broken += 1
            said = " ".join(str(error).split())[:300]
            print(f"{type(error).__name__}: {said}\n  pytest tests/simulation -s --seed {seed}", flush=True)
        else:
            tally.lives += report.lives
            tally.kills += report.kills
            tally.simulated_s += report.simulated_s
            tally.codes.update(map(int, report.codes))
    tally.cpu_s = time.process_time() - began
    return tally


def main(arguments: argparse.Namespace) -> int:
    """Run seeds until there are no more, the time is over or a signal comes; how many broke."""
    began, stopped = time.perf_counter(), False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    def over() -> bool:
        return stopped or time.perf_counter() - began >= arguments.seconds

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    first = int(time.time()) * 1000 if arguments.first is None else arguments.first
    print(f"seeds from {first}", flush=True)
    batches = _batches(first, arguments.count)
    tally, told = Tally(), 0
    with ProcessPoolExecutor(arguments.jobs, initializer=_ignore_signals) as pool:
        running: set[Future[Tally]] = set()
        while True:
            while len(running) < 2 * arguments.jobs and not over() and (batch := next(batches, None)):
                running.add(pool.submit(run, batch))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            tally = sum((future.result() for future in done), tally)
            if arguments.progress and tally.runs >= told + arguments.progress:
                told = tally.runs
                print(tally.told(time.perf_counter() - began), flush=True)
    print(tally.told(time.perf_counter() - began))
    return tally.broken


def _batches(first: int, number: int | None) -> Iterator[range]:
    for begin in counting(first, BATCH) if number is None else range(first, first + number, BATCH):
        yield range(begin, begin + BATCH if number is None else min(begin + BATCH, first + number))


def _ignore_signals() -> None:
    """The batch in hand is finished, also when the signal went to the whole process group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, nargs="?", help="first seed")
    parser.add_argument("count", type=int, nargs="?", help="how many; left out: until the time is over")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--progress", type=int, default=0, help="say how it goes every so many runs")
    sys.exit(min(main(parser.parse_args()), 1))
