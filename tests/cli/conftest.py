from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.models_world import Models

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


@pytest.fixture
def models(
    served: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Models]:
    """``hud-orchestrate models`` in an empty directory, pointed at the session's service."""
    for name, value in served.items():
        if name.startswith("HUD_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    key = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
    with httpx.Client(base_url=served["HUD_API_URL"], headers=key, timeout=300) as http:
        yield Models(capsys, http)
