"""What every command shares: help, usage errors, and a start without heavy imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import hud_orchestrator

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_lists_the_commands(hud_orchestrate: Shell) -> None:
    done = hud_orchestrate("--help")

    assert done.returncode == 0
    assert all(command in done.stdout for command in ("init", "validate", "schema"))


def test_the_version_is_that_of_the_package(hud_orchestrate: Shell) -> None:
    assert hud_orchestrate("--version").stdout == f"hud-orchestrate {hud_orchestrator.__version__}\n"


def test_a_usage_error_exits_2_and_says_so_on_stderr(hud_orchestrate: Shell) -> None:
    for arguments in (["validate"], ["validate", "a", "b"], ["validate", "--nope", "a"], ["fly"]):
        done = hud_orchestrate(*arguments)

        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage: hud-orchestrate" in done.stderr or "Usage: python -m hud_orchestrator" in done.stderr


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = {"torch", "transformers", "pydantic", "httpx", "yaml", "starlette", "hud"}
    script = f"import sys, hud_orchestrator.cli; print(sorted({heavy!r} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_checking_a_run_file_does_not_import_torch() -> None:
    script = (
        "import sys, hud_orchestrator.settings;"
        "from hud_orchestrator.config import json_schema, load, resolved, starter;"
        "print('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
