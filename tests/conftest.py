"""What every part of the suite has: the order of its tests, a shared cache, and a service of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ADDRESSES = (
    "HUD_API_KEY", "HUD_RL_URL", "HUD_API_URL", "HUD_GATEWAY_URL", "HUD_TELEMETRY_URL", "HUD_RUNTIME_URL",
)  # fmt: skip
"""What leads a client to a service: all of what its environment file says."""

HUD_VARIABLES = (*ADDRESSES, "HUD_TELEMETRY_ENABLED")

LONG = {"adapters", "bases", "chaos", "docs", "e2e", "fuzz"}
"""Directories of tests that take long, some ten seconds each, as they start whole runs or make models."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="of the simulation: run this one alone, and print its trace")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every worker begin with its share of the long ones, so that none is left with them at the end."""
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.path.parent.name in LONG]
    short = [item for item in items if item.path.parent.name not in LONG]
    ends = [len(short) * share // workers for share in range(workers + 1)]
    items[:] = [
        item
        for share in range(workers)
        for item in (*long[share::workers], *short[ends[share] : ends[share + 1]])
    ]


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of prepared base models that all workers of one test run share."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    path = root / "cache"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def environ(cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for child processes: no key of the developer's, no home, our cache."""
    kept = {name: value for name, value in os.environ.items() if name not in HUD_VARIABLES}
    home = tmp_path_factory.mktemp("home")
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(cache_home), "PYTHONWARNINGS": "default"}


@pytest.fixture(scope="session")
def served(
    environ: dict[str, str], cache_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The embedded service as a process of its own; the environment that lets a client find it."""
    with serving(tmp_path_factory.mktemp("served"), environ, cache_home) as addresses:
        yield addresses


@contextmanager
def serving(directory: Path, environ: dict[str, str], cache: Path, *options: str) -> Iterator[dict[str, str]]:
    """A service with its state in *directory*; the environment that lets a client find it."""
    env_file = directory / "service.env"
    command = [sys.executable, "-m", "hud_orchestrator", "serve", "--port", "0", "--cache", str(cache)]
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--state", str(directory / "state"), "--env-file", str(env_file), *options],
        env=environ, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process, log:
        try:
            line = process.stdout.readline()
            assert "listening" in line, (directory / "log").read_text()
            addresses = dict(text.split("=", 1) for text in env_file.read_text().splitlines())
            yield {**environ, **addresses}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
