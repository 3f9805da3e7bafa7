"""``python -m tests.chaos [--kills 300] [--seed N]``: kill real processes at random moments, and count.

Runs are taken to their last step one after the other, until so many processes have been killed. Half of
them have their service as a child of the daemon, half as a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.local.bases import prepare
from tests.chaos.accounts import Kept
from tests.chaos.campaign import Report, campaign
from tests.chaos.world import Arrangement

STEPS = 40
KILLS_EACH = {"embedded": 8, "apart": 20}
"""Of one run. An embedded service has to import its libraries at every start, so its runs take longer."""

SHARE_EMBEDDED = 0.2
FULL = {
    True: "a full disk is a small file system of its own",
    False: "a full disk is a limit on the size of files, as no small file system can be mounted here",
}
WANTED = 0.95
"""Share of finished and fresh rollouts that a kill must not cost."""


def main() -> int:
    """Run, print as it goes, and print the tables; 1 when an invariant does not hold."""
    options = _options()
    reports: list[Report] = []
    print(f"seed {options.seed}, {options.kills} kills, {STEPS} steps a run", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as root:
        cache = Path(root) / "cache"
        prepare("tiny", cache_dir=cache, seed=LocalSection().warm_start_seed)
        for arrangement in ("apart", "embedded"):
            calm = _one(reports, Path(root), arrangement, options.seed, kills=0, cache=cache)
            print(
                f"{arrangement}: without a kill, {calm.counted['steps']} steps in {calm.seconds:.0f} s",
                flush=True,
            )
        print(FULL[reports[0].mounted], flush=True)
        while (left := options.kills - sum(report.kills for report in reports)) > 0:
            embedded = sum(report.kills for report in reports if report.arrangement == "embedded")
            next_one: Arrangement = (
                "embedded" if embedded < SHARE_EMBEDDED * (options.kills - left + 1) else "apart"
            )
            kills = min(left, KILLS_EACH[next_one])
            seed = options.seed * 1000 + len(reports)
            report = _one(reports, Path(root), next_one, seed, kills=kills, cache=cache)
            print(f"{options.kills - left + report.kills:4} kills: {_line(report, seed)}", flush=True)
    return _told(reports, options.kills)


def _one(
    reports: list[Report], root: Path, arrangement: Arrangement, seed: int, *, kills: int, cache: Path
) -> Report:
    with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as directory:
        try:
            report = campaign(
                Path(directory), arrangement, seed=seed, kills=kills, steps=STEPS, cache=cache,
                quick=arrangement == "apart",
            )  # fmt: skip
        except AssertionError as error:
            raise SystemExit(f"{arrangement}, seed {seed}, {kills} kills: {error}") from error
    reports.append(report)
    return report


def _line(report: Report, seed: int) -> str:
    return (
        f"{report.arrangement}, seed {seed}: {report.counted['steps']} steps, {report.starts} starts, "
        f"{report.faults.total()} faults, {report.kept.lost} of {report.kept.used + report.kept.lost} "
        f"finished rollouts lost, {report.seconds:.0f} s {dict(report.kept.why) or ''}"
    )


def _told(reports: list[Report], wanted: int) -> int:
    faults: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    kept = Kept()
    for report in reports:
        faults += report.faults
        counted += report.counted
        codes += report.codes
        kept += report.kept
    struck = Table("what was done", "times")
    for name, times in faults.most_common():
        struck.add_row(name, str(times))
    kills = sum(report.kills for report in reports)
    found = Table("what was found", "")
    for name, value in {
        "processes killed": kills,
        "runs, each with as many steps as one without a kill": len(reports),
        "starts of the daemon": sum(report.starts for report in reports),
        "ends of the daemon by itself, by exit code": dict(sorted(codes.items())),
        "steps": counted["steps"],
        "steps applied twice": 0,
        "graded groups lost": 0,
        "half-written checkpoints": 0,
        "processes left over": 0,
        "checkpoints that nothing builds on": counted["branches"],
        "finished and fresh rollouts when the daemon died": kept.used + kept.lost,
        "of these trained on": f"{kept.used}, {kept.share:.1%}",
        "of those that were graded 0.1 s before": f"{kept.share_known:.1%}",
        "sampled again, and why": ", ".join(f"{times} {why}" for why, times in kept.why.most_common()) or "-",
        "finished, and too old to be used": kept.stale,
        "finished, and not needed any more": kept.waiting,
    }.items():
        found.add_row(name, str(value))
    Console().print(struck, found)
    if kept.share < WANTED:
        print(f"less than {WANTED:.0%} of the finished rollouts were kept", file=sys.stderr)
    return int(kills < wanted or kept.share < WANTED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="processes to kill in all")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="decides what strikes when"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
