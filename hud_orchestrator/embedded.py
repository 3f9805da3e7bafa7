"""The embedded service as a child process: started, watched, and never left behind.

The child gets its settings, the key among them, as one line on its standard input, and answers with
one line once it listens. It lives as long as that input is open: when the daemon goes away, however
that happens, the child reads its end and stops.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import SecretStr

from hud_orchestrator.errors import (
    ConfigError,
    RunFailed,
    ServiceUnreachable,
    StateInUse,
    StateUnwritable,
)
from hud_orchestrator.logs import get_logger

STOP_S = 20.0
"""Seconds for the child to finish a step in hand and to put its weights on disk."""

STATE_WAIT_S = 60.0
"""Seconds for the child of a daemon that was killed to finish its step in hand and leave the state."""

LINE_LIMIT = 65536

UNUSABLE = {error.exit_code: error for error in (StateInUse, StateUnwritable)}
"""What is wrong with its state, by what the child says of it."""

NEEDED = ("torch", "transformers", "peft", "starlette", "uvicorn")

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a service is, and the key for it."""

    rl_url: str
    api_url: str
    gateway_url: str
    telemetry_url: str
    api_key: SecretStr


@asynccontextmanager
async def embedded_service(settings: dict[str, Any], *, log_file: Path) -> AsyncGenerator[Addresses, None]:
    """Run the embedded service for the length of the block.

    Leaving the block stops it; if it ends before, the block is cancelled and the reason raised.

    Raises:
        ConfigError: what it needs is not installed.
        StateInUse: another service does not leave its state.
        StateUnwritable: its state or its log cannot be written.
        RunFailed: it could not start.
        ServiceUnreachable: it ended while it was needed.
    """
    check_installed()
    key = SecretStr(secrets.token_urlsafe(24))
    ours = {"api_key": key.get_secret_value(), "leases_outlive": False, "state_wait_s": STATE_WAIT_S}
    state = settings["state_dir"]
    waits = in_use(Path(state))
    with _opened(log_file) as errors:
        process = await _spawn(errors, threads=settings["local"]["threads"])
    stopping = anyio.Event()
    try:
        if waits:
            log.warning("service.waiting", state=state, reason="another one has it", limit_s=STATE_WAIT_S)
        await _instruct(process, {**settings, **ours})
        url = await _ready(process, log_file)
        log.info("service.started", pid=process.pid, url=url)
        async with anyio.create_task_group() as watch:
            watch.start_soon(_watch, process, stopping, log_file, name="service-watch")
            yield Addresses(
                rl_url=url, api_url=url, gateway_url=url, telemetry_url=f"{url}/v3/api", api_key=key
            )
            stopping.set()
            watch.cancel_scope.cancel()
    finally:
        stopping.set()
        await _stop(process)


def check_installed() -> None:
    """Refuse at once what would fail seconds later in the child.

    Raises:
        ConfigError: a package that the embedded service needs is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"service: local needs {', '.join(missing)}; install what is missing with: "
            "pip install 'hud-orchestrator[local]'"
        )


def in_use(state: Path) -> bool:
    """Whether a service that runs has the state directory."""
    try:
        file = (state / "lock").open("a")
    except OSError:
        return False  # the service says better what is wrong with it
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _opened(log_file: Path) -> IO[bytes]:
    try:
        log_file.parent.mkdir(exist_ok=True)
        return log_file.open("ab")
    except OSError as error:
        raise StateUnwritable(
            f"{log_file}: cannot be written: {error.strerror}; mend permissions or free some space"
        ) from error


async def _spawn(errors: IO[bytes], *, threads: int) -> anyio.abc.Process:
    return await anyio.open_process(
        [sys.executable, "-m", "hud_orchestrator.local"],
        stderr=errors,
        # A session of its own: Ctrl-C in the terminal is for the daemon, which drains first.
        start_new_session=True,
        env={**_without_keys(), "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
    )


async def _instruct(process: anyio.abc.Process, settings: dict[str, Any]) -> None:
    assert process.stdin is not None
    with suppress(anyio.BrokenResourceError):  # it died; what it printed says why
        await process.stdin.send(json.dumps(settings).encode() + b"\n")


def _without_keys() -> dict[str, str]:
    """The environment but for the key of another service."""
    return {name: value for name, value in os.environ.items() if name != "HUD_API_KEY"}


async def _ready(process: anyio.abc.Process, log_file: Path) -> str:
    assert process.stdout is not None
    try:
        line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", LINE_LIMIT)
        said = json.loads(line)
    except (anyio.IncompleteRead, anyio.EndOfStream, anyio.DelimiterNotFound, ValueError):
        said = {}
    if "url" in said:
        return str(said["url"])
    reason = said.get("error") or f"it ended without a word; read {log_file}"
    raised = UNUSABLE.get(said.get("exit_code"), RunFailed)
    raise raised(f"the embedded service did not start: {reason}")


async def _watch(process: anyio.abc.Process, stopping: anyio.Event, log_file: Path) -> None:
    code = await process.wait()
    if not stopping.is_set():
        raise ServiceUnreachable(
            f"the embedded service ended by itself with code {code}; read {log_file}, "
            "then run again to continue"
        )


async def _stop(process: anyio.abc.Process) -> None:
    """Close its input, wait a bounded time, and kill what is left."""
    with anyio.move_on_after(STOP_S, shield=True):
        assert process.stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(2, shield=True):
        await process.aclose()
    log.info("service.stopped", pid=process.pid, code=process.returncode)
