"""The embedded service alone."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.conftest import ADDRESSES
from tests.e2e.conftest import until_line


def serving(directory: Path, environ: Mapping[str, str], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hud_orchestrator", "serve", "--state", "state", "--port", "0", *options],
        cwd=directory, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_any_client_finds_it_by_the_environment_file(tmp_path: Path, environ: dict[str, str]) -> None:
    with serving(tmp_path, environ, "--env-file", "service.env") as process:
        said = until_line(process, "listening on")
        lines = (tmp_path / "service.env").read_text().splitlines()
        addresses = dict(line.split("=", 1) for line in lines)
        refused = httpx.get(f"{addresses['HUD_API_URL']}/v2/models")
        key = {"Authorization": f"Bearer {addresses['HUD_API_KEY']}"}
        found = httpx.get(f"{addresses['HUD_API_URL']}/v2/models", headers=key).json()
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        assert process.stdout is not None
        output = said + process.stdout.read()

    assert code == 0
    assert stat.S_IMODE((tmp_path / "service.env").stat().st_mode) == 0o600
    assert set(addresses) == set(ADDRESSES)
    assert refused.status_code == 401
    assert {"tiny", "smollm2-135m"} <= {model["model_name"] for model in found["items"]}
    assert addresses["HUD_API_KEY"] not in output


def test_a_port_that_is_taken_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path, environ, "--port", str(port)) as process:
            line = until_line(process, "cannot listen")
            code = process.wait(30)

    assert code == 2
    assert f"127.0.0.1:{port}" in line
