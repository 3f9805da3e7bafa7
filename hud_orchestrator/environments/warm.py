"""One environment process: started, watched, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from asyncio import get_running_loop
from pathlib import Path
from typing import IO, Self

from hud_orchestrator.environments.control import ControlSession
from hud_orchestrator.environments.lines import SocketLines
from hud_orchestrator.environments.owned import OwnedProcess

HOST = "hud_orchestrator.environments.host"


class WarmProcess:
    """An environment process and the session with it."""

    def __init__(self, owned: OwnedProcess, connection: socket.socket, lines: SocketLines) -> None:
        self.process = owned.process
        self.session = ControlSession(lines, tells_ends=True)
        self.episodes = 0
        self._owned = owned
        self._connection = connection
        self._lines = lines
        self._end = self._watch()

    @classmethod
    async def start(cls, source: Path, *, log_file: IO[bytes]) -> Self:
        """Start a process that serves *source*; it has not answered yet.

        Raises:
            OSError: no process could be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            lines = await SocketLines.over(ours)
            try:
                owned = await OwnedProcess.start(
                    [sys.executable, "-m", HOST, str(source), str(theirs.fileno())],
                    home=source.parent,
                    output=log_file,
                    errors=log_file,
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                lines.close()
                raise
        return cls(owned, ours, lines)

    async def kill(self) -> None:
        """End it and everything that it started, and remove its temporary files."""
        self._unwatch()
        self._lines.close()
        await self._owned.kill()

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
            self._connection.shutdown(socket.SHUT_RDWR)
