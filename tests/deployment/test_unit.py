"""The systemd unit and the daemon agree on exit codes, times and directories."""

from __future__ import annotations

import shutil
import subprocess
import sys
from enum import Enum, auto
from pathlib import Path

import pytest

from hud_orchestrator.config.run import RunSection
from hud_orchestrator.daemon import CLOSING_S
from hud_orchestrator.embedded import STOP_S
from hud_orchestrator.errors import ExitCode

UNIT = Path(__file__).parents[2] / "configs/systemd/hud-orchestrator@.service"


class Fate(Enum):
    """What systemd makes of an exit code."""

    SUCCESS = auto()
    RESTARTED = auto()
    LEFT_FAILED = auto()


ON_PURPOSE = {
    ExitCode.DONE: Fate.SUCCESS,
    ExitCode.RUN_FAILED: Fate.LEFT_FAILED,
    ExitCode.USAGE: Fate.LEFT_FAILED,
    # The next start settles it.
    ExitCode.OUTCOME_UNKNOWN: Fate.RESTARTED,
    ExitCode.UNREACHABLE: Fate.RESTARTED,
    # A rare bug should not cost a night; the start limit ends one that always strikes.
    ExitCode.BUG: Fate.RESTARTED,
    ExitCode.STATE_UNWRITABLE: Fate.LEFT_FAILED,
    ExitCode.STATE_IN_USE: Fate.LEFT_FAILED,
    # Never fight over a model.
    ExitCode.HEAD_MOVED: Fate.LEFT_FAILED,
    ExitCode.KEY_REFUSED: Fate.LEFT_FAILED,
    # A person looks, and starts it again.
    ExitCode.PAUSED: Fate.LEFT_FAILED,
    ExitCode.INTERRUPTED: Fate.SUCCESS,
    # Work was cut off, which a person should see; but a person asked for the end.
    ExitCode.ABORTED: Fate.LEFT_FAILED,
}


def settings() -> dict[str, str]:
    """The unit's settings by key; a key that occurs twice would be a trap, and there is none."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if line[:1].isalpha()]
    found = {key: value for key, _, value in lines}
    assert len(found) == len(lines)
    return found


def codes(key: str) -> set[int]:
    return {int(code) for code in settings()[key].split()}


def fate(code: ExitCode) -> Fate:
    if code is ExitCode.DONE or code in codes("SuccessExitStatus"):
        return Fate.SUCCESS
    return Fate.LEFT_FAILED if code in codes("RestartPreventExitStatus") else Fate.RESTARTED


def test_every_exit_code_is_treated_on_purpose() -> None:
    assert settings()["Restart"] == "on-failure"
    assert {code: fate(code) for code in ExitCode} == ON_PURPOSE


def test_the_unit_knows_no_exit_code_that_the_daemon_has_not() -> None:
    assert codes("SuccessExitStatus") | codes("RestartPreventExitStatus") <= set(ExitCode)


def test_a_drain_ends_before_systemd_kills() -> None:
    drain_s = RunSection.model_fields["drain_s"].default

    assert float(settings()["TimeoutStopSec"]) > drain_s + STOP_S + CLOSING_S


def test_the_daemon_alone_is_asked_to_end_and_what_it_leaves_is_killed() -> None:
    assert settings()["KillMode"] == "mixed"


def test_the_start_limit_can_be_reached_at_the_pace_of_restarts() -> None:
    day_s = 24 * 3600
    assert settings()["StartLimitIntervalSec"] == "1d"

    assert int(settings()["StartLimitBurst"]) * float(settings()["RestartSec"]) < day_s


def test_the_daemon_works_and_lives_in_directories_that_systemd_makes_for_it() -> None:
    unit = settings()
    environment = dict(pair.split("=", 1) for pair in unit["Environment"].split())

    assert unit["WorkingDirectory"] == environment["HOME"] == f"%S/{unit['StateDirectory']}"
    assert environment["XDG_CACHE_HOME"] == f"%C/{unit['CacheDirectory']}"
    assert "%i" in unit["StateDirectory"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    program = settings()["ExecStart"].split()[0]
    unit = tmp_path / "hud-orchestrator@my-run.service"
    unit.write_text(UNIT.read_text().replace(program, sys.executable))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )

    # It succeeds on unknown keys too, and may complain about other units of the machine.
    assert [line for line in done.stderr.splitlines() if "hud-orchestrator" in line] == []
    assert done.returncode == 0
