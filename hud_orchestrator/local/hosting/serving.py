"""An environment as a server of its own: a process, for as long as somebody leases it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import IO

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from hud_orchestrator.environments.process import KEY
from hud_orchestrator.environments.server import ANNOUNCEMENT
from hud_orchestrator.errors import EnvironmentFailed

READY_S = 60.0
"""For the process to say its port."""

LINE_LIMIT = 4096

TETHERED = ["-m", "hud_orchestrator.environments.tether", sys.executable]
SERVER = "hud_orchestrator.environments.server"


@asynccontextmanager
async def serve(
    source: Path, environment: str, *, log_file: IO[bytes]
) -> AsyncGenerator[tuple[str, int], None]:
    """Where an environment of *source* listens; leaving kills its process, and all that this has started.

    Raises:
        EnvironmentFailed: it does not start.
    """
    process = await anyio.open_process(
        [sys.executable, *TETHERED, "-m", SERVER, str(source), "--env", environment],
        stdin=DEVNULL, stderr=log_file, start_new_session=True, cwd=source.parent,
        env={name: value for name, value in os.environ.items() if name != KEY},
    )  # fmt: skip
    try:
        yield "127.0.0.1", await _port(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.move_on_after(2, shield=True):
            await process.aclose()


async def _port(process: anyio.abc.Process) -> int:
    assert process.stdout is not None
    with anyio.move_on_after(READY_S):
        try:
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", LINE_LIMIT)
            return int(line.decode().removeprefix(ANNOUNCEMENT))
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.DelimiterNotFound, ValueError) as error:
            raise EnvironmentFailed(
                "its process does not tell its port; environments.log of the service has what it printed"
            ) from error
    raise EnvironmentFailed(f"it was not ready in {READY_S:g} s")
