"""One environment process: started, watched, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from asyncio import get_running_loop
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, Self

import anyio
import anyio.abc
from anyio import to_thread

from hud_orchestrator.environments.control import ControlSession
from hud_orchestrator.environments.leftovers import clear, make_directory

HOST = "hud_orchestrator.environments.host"

KEY = "HUD_API_KEY"
"""Stays with the daemon: what an environment knows, it may print."""

KILL_S = 5.0
"""For a killed process to be gone, and its files with it. Nothing survives the signal, so only a kernel
or a disk that is stuck needs that long."""


class WarmProcess:
    """An environment process and the session with it."""

    def __init__(self, process: anyio.abc.Process, stream: anyio.abc.SocketStream, directory: Path) -> None:
        self.process = process
        self.session = ControlSession(stream)
        self.episodes = 0
        self._stream = stream
        self._directory = directory
        self._end = self._watch()

    @classmethod
    async def start(cls, source: Path, *, log_file: IO[bytes]) -> Self:
        """Start a process that serves *source*; it has not answered yet.

        Raises:
            OSError: no process could be started.
        """
        ours, theirs = socket.socketpair()
        directory = make_directory()
        kept = {name: value for name, value in os.environ.items() if name != KEY}
        try:
            with theirs:
                process = await anyio.open_process(
                    [sys.executable, "-m", HOST, str(source), str(theirs.fileno())],
                    stdin=DEVNULL, stdout=log_file, stderr=log_file, pass_fds=[theirs.fileno()],
                    start_new_session=True, cwd=source.parent, env={**kept, "TMPDIR": str(directory)},
                )  # fmt: skip
        except BaseException:
            ours.close()
            clear(directory)
            raise
        return cls(process, await anyio.abc.SocketStream.from_socket(ours), directory)

    async def kill(self) -> None:
        """End it and everything that it started, and remove its temporary files."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with anyio.move_on_after(KILL_S, shield=True):
            self._unwatch()
            await self._stream.aclose()
            await self.process.wait()
            await to_thread.run_sync(clear, self._directory, abandon_on_cancel=True)

    def _watch(self) -> int | None:
        """End the connection when the process ends: something that it started may hold it open."""
        if not hasattr(os, "pidfd_open"):  # Linux has it
            return None
        try:
            end = os.pidfd_open(self.process.pid)
        except OSError:  # ended and gone already, or an old kernel
            return None
        get_running_loop().add_reader(end, self._ended)
        return end

    def _unwatch(self) -> None:
        if self._end is not None:
            get_running_loop().remove_reader(self._end)
            os.close(self._end)
            self._end = None

    def _ended(self) -> None:
        self._unwatch()
        # What it said last is still read; the end comes behind it.
        with contextlib.suppress(OSError):
            raw = self._stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610  (no Django)
            raw.shutdown(socket.SHUT_RDWR)
