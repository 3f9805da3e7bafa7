"""One run under fire: its files, its processes, and what can be done to them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any, Literal

import yaml

from hud_orchestrator.store.database import Database
from tests.chaos.disk import Disk
from tests.chaos.port import Port
from tests.chaos.processes import CommandDaemon, Daemon, ForkedDaemon, ForkedService, gone, send
from tests.conftest import HUD_VARIABLES
from tests.e2e.conftest import processes_of

Arrangement = Literal["embedded", "apart"]
"""Whether the service is a child of the daemon, or a process that somebody else runs."""

TASKS = """
import os, random, time, uuid
from pathlib import Path
from hud_orchestrator import Environment
from hud_orchestrator.environments.template import EvaluationResult

env = Environment("chaos")
GRADED = Path(__file__).with_name("graded")


@env.template()
async def add(a: int, b: int):
    yield f"{a}+{b}="
    name = uuid.uuid4().hex
    with GRADED.open("ab", buffering=0) as file:
        file.write(f"{name} {time.time()}\\n".encode())
    # A reward of its own for each, so that every group has something to train on.
    yield EvaluationResult(reward=random.random(), info={"name": name})


train = [add(a=a, b=b) for a in range(10, 50) for b in range(8)]
"""
"""An environment that writes down each grade before it tells anybody."""

GONE_S = 30.0
"""Seconds for processes to notice that the daemon has gone; a machine that is busy needs some."""


class World:
    """A directory, a run file, and the processes. Use as a context manager."""

    def __init__(
        self, directory: Path, arrangement: Arrangement, rng: Random, *, steps: int, cache: Path, quick: bool
    ) -> None:
        self.directory = directory
        self.arrangement = arrangement
        self.rng = rng
        self.steps = steps
        self.quick = quick
        """Whether the daemon is forked from a warm process rather than started as a command."""
        self.staleness = rng.choice((0, 1))
        self.disks = {"run": Disk(directory / "runs")}
        self.port: Port | None = None
        self.service: ForkedService | None = None
        self.daemon: Daemon | None = None
        self.log_offset = 0
        """Of ``run.log``, where the last start of the daemon begins."""
        self.began = time.monotonic()
        self._cache = cache
        self._key = secrets.token_urlsafe(16)
        if arrangement == "apart":
            self.disks["service"] = Disk(directory / "service")
            self.port = Port()
        self._write(cache)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.daemon, self.service):
            if process is not None:
                send(process, SIGKILL)
                gone(process, within_s=GONE_S)
        if self.port is not None:
            self.port.end()
        for disk in self.disks.values():
            disk.close()

    @property
    def run_directory(self) -> Path:
        """Where the run keeps its store and its logs."""
        return self.directory / "runs" / "it"

    @property
    def models(self) -> Path:
        """Where the service keeps its forks."""
        state = (
            self.run_directory / "service"
            if self.arrangement == "embedded"
            else self.directory / "service" / "state"
        )
        return state / "models"

    def start_service(self) -> None:
        """Start the service, where it is a process of its own."""
        if self.port is None:
            return
        self.service = ForkedService(
            self.directory / "service" / "state", key=self._key, cache=self._cache,
            log=self.directory / "service.log",
        )  # fmt: skip
        self.port.upstream = self.service.port

    def start_daemon(self) -> None:
        """Start the daemon, or start it again."""
        log = self.run_directory / "run.log"
        self.log_offset = log.stat().st_size if log.exists() else 0
        start = ForkedDaemon if self.quick else CommandDaemon
        self.daemon = start(self.directory, self._environ())

    def child(self) -> int | None:
        """Process id of the daemon's own service, once it has one."""
        started = [line for line in self.events() if line["event"] == "service.started"]
        return int(started[-1]["pid"]) if self.arrangement == "embedded" and started else None

    def events(self, offset: int | None = None) -> list[dict[str, Any]]:
        """What the daemon has logged since *offset*, by default since it was last started."""
        found = []
        with suppress(FileNotFoundError), (self.run_directory / "run.log").open("rb") as file:
            file.seek(self.log_offset if offset is None else offset)
            for line in file:
                with suppress(ValueError):  # half a line, of a process that was killed or had no room
                    found.append(json.loads(line))
        return found

    def output(self) -> str:
        """The last lines that the daemon has printed."""
        path = self.directory / "output"
        return "\n".join(path.read_text(errors="replace").splitlines()[-40:]) if path.exists() else ""

    def graded(self) -> dict[str, float]:
        """Names of the grades that the environment has given so far, and how many seconds ago."""
        path, now = self.directory / "graded", time.time()
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return {name: now - float(at) for name, at in (line.split() for line in lines)}

    def store(self) -> sqlite3.Connection:
        """A copy of the store as it lies on the disk: looking at it changes nothing for who opens it next."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.run_directory.glob("store.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, copy / path.name)
        # As the next one who holds the run does, make rows of what was only noted.
        Database(copy / "store.db").close()
        connection = sqlite3.connect(copy / "store.db")
        connection.row_factory = sqlite3.Row
        return connection

    def left_over(self) -> list[str]:
        """What still runs although the daemon has ended, once there was time to notice."""
        until = time.monotonic() + GONE_S
        while (found := processes_of(self.directory)) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def _write(self, cache: Path) -> None:
        (self.directory / "tasks.py").write_text(TASKS)
        config = {
            "run": {"name": "it", "steps": self.steps, "seed": self.rng.randrange(1000)},
            "model": {"slug": "chaos", "base": "tiny"},
            "service": "local" if self.arrangement == "embedded" else "hud",
            "taskset": {"train": "tasks.py:train"},
            "runtime": {"placement": "local"},
            "agent": {"max_tokens": 6},
            "rollout": {
                "group_size": 4, "groups_per_step": 8, "concurrency": 16, "deadline_s": 20,
                "grading_reserve_s": 5,
            },
            "pipeline": {"staleness": self.staleness},
            # A stopped service answers later than this. Its tree never lags, so a moment's watch will do.
            "trainer": {"learning_rate": {"peak": 1e-6}, "call_timeout_s": 2.0, "settle_s": 1.0},
            "resilience": {"pause_s": 0.2, "longest_pause_s": 0.5, "gateway_patience_s": 5},
            "logging": {"format": "json"},
        }  # fmt: skip
        if self.arrangement == "embedded":
            config["local"] = {"cache_dir": str(cache), "keep": {"last": 3}}
        (self.directory / "run.yaml").write_text(yaml.safe_dump(config))

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in HUD_VARIABLES}
        if self.port is None:
            return kept
        url = f"http://127.0.0.1:{self.port.number}"
        return {
            **kept, "HUD_API_KEY": self._key, "HUD_RL_URL": url, "HUD_API_URL": url, "HUD_GATEWAY_URL": url,
            "HUD_TELEMETRY_URL": f"{url}/v3/api",
        }  # fmt: skip
