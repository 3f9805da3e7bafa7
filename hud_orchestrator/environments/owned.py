"""A process that is ended with everything that it started, and everything that it left behind."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, Self

import anyio
import anyio.abc
from anyio import to_thread

from hud_orchestrator.environments.leftovers import OwnDirectory, sweep

KEY = "HUD_API_KEY"
"""Stays with the daemon: what an environment knows, it may print."""

KILL_S = 5.0
"""For a killed process to be gone, and its files with it. Nothing survives the signal, so only a kernel
or a disk that is stuck needs that long."""


class OwnedProcess:
    """A process in a session of its own, with a directory of its own for temporary files."""

    def __init__(self, process: anyio.abc.Process, directory: OwnDirectory) -> None:
        self.process = process
        self._directory = directory

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        home: Path,
        output: IO[bytes] | int,
        errors: IO[bytes],
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start *command* in *home*.

        Raises:
            OSError: no process could be started.
        """
        directory = await to_thread.run_sync(_new_directory)
        kept = {name: value for name, value in os.environ.items() if name != KEY}
        try:
            process = await anyio.open_process(
                command, stdin=DEVNULL, stdout=output, stderr=errors, pass_fds=pass_fds,
                start_new_session=True, cwd=home, env={**kept, "TMPDIR": str(directory.path)},
            )  # fmt: skip
        except BaseException:
            directory.clear()
            raise
        return cls(process, directory)

    async def end_with_it(self) -> None:
        """End what it started as soon as it ends: a child that holds its connections open hides its end."""
        await self.process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it and everything that it started, and remove its temporary files."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with anyio.move_on_after(KILL_S, shield=True):
            await self.process.aclose()
            await to_thread.run_sync(self._directory.clear, abandon_on_cancel=True)


# Once in a daemon's life: what it leaves itself, it clears itself.
_swept = functools.cache(sweep)


def _new_directory() -> OwnDirectory:
    _swept()
    return OwnDirectory()
