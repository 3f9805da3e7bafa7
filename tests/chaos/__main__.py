"""``python -m tests.chaos [--kills 300] [--seed N]``: kill real processes at random moments, and count.

Runs are taken to their last step one after the other, until so many processes have been killed: some have
their service as a child of the daemon, others as a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.local.bases import prepare
from tests.chaos.accounts import FRESH, KNOWN, Fate, share_used
from tests.chaos.campaign import Report, campaign
from tests.chaos.world import Arrangement

STEPS = 40
KILLS_EACH = {"embedded": 8, "apart": 20}
"""Of one run. An embedded service has to import its libraries at every start, so its runs take longer."""

SHARES = {"embedded": 0.2, "apart": 0.8}
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
        for arrangement in options.arrangements:
            calm = _one(reports, Path(root), arrangement, options.seed, kills=0, cache=cache)
            print(f"{arrangement}, without a kill: {calm.seconds:.0f} s", flush=True)
        print(FULL[reports[0].mounted], flush=True)
        while (left := options.kills - sum(report.kills for report in reports)) > 0:
            arrangement = _next(reports, options.arrangements)
            kills = min(left, KILLS_EACH[arrangement])
            seed = options.seed * 1000 + len(reports)
            report = _one(reports, Path(root), arrangement, seed, kills=kills, cache=cache)
            print(f"{options.kills - left + report.kills:4} kills: {_line(report, seed)}", flush=True)
    return _told(reports, options.kills)


def _next(reports: list[Report], arrangements: Sequence[Arrangement]) -> Arrangement:
    """The one that has had less of its share of kills."""
    kills = Counter[Arrangement]()
    for report in reports:
        kills[report.arrangement] += report.kills
    return min(arrangements, key=lambda one: kills[one] / SHARES[one])


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
    lost = {fate.value: report.fates[fate] for fate in FRESH if fate != Fate.USED and report.fates[fate]}
    return (
        f"{report.arrangement}, seed {seed}: {report.counted['steps']} steps, {report.starts} starts, "
        f"{report.faults.total()} faults, {report.fates[Fate.USED]} finished rollouts kept"
        f"{f', not kept {lost}' if lost else ''}, {report.seconds:.0f} s"
    )


def _told(reports: list[Report], wanted: int) -> int:
    faults, fates, counted, codes = Counter[str](), Counter[Fate](), Counter[str](), Counter[int]()
    for report in reports:
        faults.update(report.faults)
        fates.update(report.fates)
        counted.update(report.counted)
        codes.update(report.codes)
    kills = sum(report.kills for report in reports)
    found: dict[str, object] = {
        "processes killed": kills,
        "runs, each with as many steps as one without a kill": len(reports),
        "starts of the daemon": sum(report.starts for report in reports),
        "ends of the daemon by itself, by exit code": dict(sorted(codes.items())),
        "steps": counted["steps"],
        "steps applied twice, graded groups lost": "0 and 0",
        "half-written checkpoints, processes left over": "0 and 0",
        "checkpoints that nothing builds on": counted["branches"],
    }
    shares: dict[str, object] = {
        "kept, of those that were fresh": f"{share_used(fates, FRESH):.1%}",
        "kept, of those that were graded at least 0.1 s before": f"{share_used(fates, KNOWN):.1%}",
    }
    console = Console()
    console.print(_table("what was done", dict(faults.most_common())))
    console.print(_table("what was found", found))
    became = {fate.value: fates[fate] for fate in Fate}
    console.print(_table("finished rollouts when the daemon died", became | shares))
    return int(kills < wanted or share_used(fates, KNOWN) < WANTED)


def _table(title: str, rows: Mapping[str, object]) -> Table:
    table = Table(title, "")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="processes to kill in all")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="decides what strikes when"
    )
    parser.add_argument(
        "--only", choices=("apart", "embedded"), help="the service apart from the daemon, or its child"
    )
    options = parser.parse_args()
    options.arrangements = [options.only] if options.only else ["apart", "embedded"]
    return options


if __name__ == "__main__":
    sys.exit(main())
