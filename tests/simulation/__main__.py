"""``python -m tests.simulation FIRST COUNT``: run seeds, and say which broke and how fast they ran."""

from __future__ import annotations

import sys
import time

from tests.simulation.run import simulate


def main(first: int, count: int) -> int:
    """How many of *count* seeds from *first* broke."""
    began, broken, lives, kills, seconds = time.perf_counter(), 0, 0, 0, 0.0
    for seed in range(first, first + count):
        try:
            told = simulate(seed)
        except Exception as error:  # a bug of the product is a finding, whatever it raises
            broken += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        else:
            lives, kills, seconds = lives + told.lives, kills + told.kills, seconds + told.simulated_s
    took = time.perf_counter() - began
    print(
        f"{count} runs, {broken} broken, {lives} lives, {kills} kills, "
        f"{count / took * 60:.0f} runs a minute, {seconds / took:.0f} simulated seconds a second"
    )
    return broken


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2])), 1))
