"""The daemon and the service as real processes that can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from hud_orchestrator import logs

# A server of forks has imported everything once, so a start takes a tenth of a second and not several.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        __name__,
        "hud_orchestrator.daemon",
        "hud_orchestrator.local.serve",
        "transformers.models.llama.modeling_llama",
    ]
)

START_S = 120
"""Seconds for a service to start, on a machine that is busy."""


class Daemon(Protocol):
    """``hud-orchestrate run`` as a process."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, ``None`` while it runs; negative: the signal that ended it."""
        ...


class CommandDaemon:
    """The command as a person types it."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        with (directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hud_orchestrator", "run", "run.yaml"],
                cwd=directory, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code."""
        return self._process.poll()


class ForkedDaemon:
    """The same program, forked from a process that has imported it already."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self._process: BaseProcess = FORKS.Process(target=_run, args=(str(directory), environ))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code."""
        return self._process.exitcode


def _run(directory: str, environ: dict[str, str]) -> None:
    from hud_orchestrator.cli import main

    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["hud-orchestrate", "run", "run.yaml"]
    sys.exit(main())


class ForkedService:
    """The embedded service on its own."""

    def __init__(self, state: Path, *, key: str, cache: Path, log: Path) -> None:
        settings = json.dumps(
            {"state_dir": str(state), "api_key": key, "local": {"cache_dir": str(cache), "keep": {"last": 3}}}
        )
        ours, theirs = FORKS.Pipe(duplex=False)
        self._process: BaseProcess = FORKS.Process(target=_serve, args=(settings, str(log), theirs))
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.port = 0
        """Where it listens; 0 when it has ended before it could."""
        with ours, suppress(EOFError):
            if not ours.poll(START_S):
                raise AssertionError(f"the service did not start in {START_S} s; read {log}")
            self.port = urlsplit(ours.recv()).port or 0

    def poll(self) -> int | None:
        """Its exit code."""
        return self._process.exitcode


def _serve(settings: str, log: str, ready: Connection) -> None:
    from hud_orchestrator.local.serve import serve_until_told
    from hud_orchestrator.local.settings import ServiceSettings

    os.setsid()
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    logs.configure(stream=sys.stderr, as_json=True, level="info")
    asyncio.run(serve_until_told(ServiceSettings.model_validate_json(settings), ready=ready.send))


def send(process: Daemon | ForkedService, number: signal.Signals) -> int:
    """Signal a process that may have ended; how many were there to be signalled, 1 or 0."""
    if process.poll() is not None:
        return 0
    # Not reaped yet, so the number is still its own.
    os.kill(process.pid, number)
    return 1


def gone(process: Daemon | ForkedService, *, within_s: float) -> int:
    """Wait for the end of a process.

    Raises:
        AssertionError: it did not end.
    """
    until = time.monotonic() + within_s
    while (code := process.poll()) is None:
        if time.monotonic() > until:
            raise AssertionError(f"process {process.pid} has not ended within {within_s:g} s")
        time.sleep(0.01)
    return code
