"""Runs of the real command on real processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

TASKS = """
from hud_orchestrator import Environment

env = Environment("arithmetic")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield 1.0 if (answer or "").strip() == str(a + b) else 0.0


train = [add(a=a, b=b) for a in range(10, 50) for b in range(8)]
heldout = [add(a=a, b=9) for a in range(10, 26)]
"""


@dataclass
class Runner:
    """A directory with a run file and tasks, and the command to run it with."""

    directory: Path
    environ: Mapping[str, str]
    config: dict[str, Any] = field(default_factory=dict)

    def write(self, tasks: str = TASKS, **sections: Any) -> None:
        (self.directory / "tasks.py").write_text(tasks)
        for name, values in sections.items():
            if isinstance(values, dict):
                self.config.setdefault(name, {}).update(values)
            else:
                self.config[name] = values
        (self.directory / "run.yaml").write_text(yaml.safe_dump(self.config))

    def command(self, *extra: str) -> list[str]:
        return [sys.executable, "-m", "hud_orchestrator", "run", "run.yaml", *extra]

    def run(self, *extra: str, timeout: float = 120, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*extra), cwd=self.directory, env={**self.environ, **environ}, timeout=timeout,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    @contextmanager
    def started(self, *extra: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """The command in the background; killed at the end if it still runs."""
        with subprocess.Popen(
            self.command(*extra), cwd=self.directory, env={**self.environ, **environ}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    @property
    def state(self) -> Path:
        return self.directory / "runs" / self.config["run"]["name"]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "summary.json").read_text())
        return found

    def metrics(self, kind: str = "step") -> list[dict[str, Any]]:
        lines = (self.state / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["kind"] == kind]

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.state / "run.log").read_text().splitlines())
        return [line for line in lines if line["event"] == name]

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.state / 'store.db'}?mode=ro", uri=True)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()


def until_line(process: subprocess.Popen[str], text: str) -> str:
    """Read the process's output up to a line with *text*."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r} in:\n{''.join(seen)}")


def processes_of(directory: Path) -> list[str]:
    """Command lines of live processes that mention *directory* or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((entry / "cwd").readlink()) if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(directory) in words or where.startswith(str(directory)):
            found.append(words)
    return found


def children_of(parent: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent:
            found.append(int(entry.name))
    return found


def config_of() -> dict[str, Any]:
    return {
        "run": {"name": "it", "steps": 3},
        "model": {"slug": f"it-{uuid4().hex[:8]}", "base": "tiny"},
        "taskset": {"train": "tasks.py:train", "heldout": "tasks.py:heldout"},
        "agent": {"max_tokens": 6},
        "rollout": {
            "group_size": 4, "groups_per_step": 4, "concurrency": 4, "deadline_s": 30, "grading_reserve_s": 5
        },
        "trainer": {"learning_rate": {"peak": 3e-4}},
        "logging": {"format": "json"},
    }  # fmt: skip


@pytest.fixture
def local_run(tmp_path: Path, environ: dict[str, str], cache_home: Path) -> Runner:
    """A short run that brings its own embedded service."""
    config = {**config_of(), "service": "local", "local": {"cache_dir": str(cache_home)}}
    runner = Runner(tmp_path, environ, config)
    runner.write()
    return runner


@pytest.fixture
def remote_run(tmp_path: Path, served: dict[str, str]) -> Runner:
    """A short run against a service that is there already."""
    # The service's tree never lags, and no call of it arrives late.
    runner = Runner(tmp_path, served, {**config_of(), "service": "hud", "trainer": {"settle_s": 1}})
    runner.write()
    return runner


@pytest.fixture
def checkpoints(served: dict[str, str]) -> Callable[[str], list[dict[str, Any]]]:
    """Reads a slug's checkpoint tree off the service."""
    import httpx

    def read(slug: str) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
        with httpx.Client(base_url=served["HUD_API_URL"], headers=headers) as client:
            model = client.get("/v2/models/resolve", params={"model": slug}).raise_for_status().json()["id"]
            tree: list[dict[str, Any]] = (
                client.get(f"/v2/models/{model}/checkpoints").raise_for_status().json()
            )
            return tree

    return read
