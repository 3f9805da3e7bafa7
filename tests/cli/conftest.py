from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hud_orchestrate(tmp_path: Path) -> Shell:
    """Run the real program in an empty directory with an empty home."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("HUD_")}
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hud_orchestrator", *arguments],
            cwd=work,
            env=inherited | {"HOME": str(home), "COLUMNS": "120"} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def work(hud_orchestrate: Shell, tmp_path: Path) -> Path:
    """The directory in which the program runs."""
    return tmp_path / "work"
