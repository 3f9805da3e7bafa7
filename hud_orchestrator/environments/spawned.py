"""A process for every episode: whatever an environment leaves behind ends with it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from hud_orchestrator.environments import tether
from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.crew import crew
from hud_orchestrator.environments.link import Dial, Pace
from hud_orchestrator.environments.owned import OwnedProcess
from hud_orchestrator.environments.served import served_episode, tcp_dial
from hud_orchestrator.environments.server import ANNOUNCEMENT
from hud_orchestrator.errors import EnvironmentFailed, EnvironmentLost
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Task

OURS = (sys.executable, "-m", "hud_orchestrator.environments.server", "{source}", "--env", "{env}")
"""The command that serves a source of ours."""

LINE_LIMIT = 2**16
"""Bytes of a line that may still announce a port."""

log = get_logger()


class Spawned:
    """Starts a process for every episode, and ends it with everything that it started."""

    def __init__(
        self, source: Path, *, command: Sequence[str] | None, log_file: IO[bytes], pace: Pace
    ) -> None:
        """Start *command*, by default ours, in the directory of *source*.

        Args:
            source: the file or directory that defines the environment.
            command: ``{source}`` and ``{env}`` in it are replaced. It prints ``HUD_SERVE_PORT=<port>``.
            log_file: gets everything else that the process prints.
            pace: how long it may take to listen, and to let a task go.
        """
        self._source = source
        self._command = OURS if command is None else command
        self._log_file = log_file
        self._pace = pace
        # Starting is work for the processor; a hundred at once would only slow one another down.
        self._starting = anyio.CapacityLimiter(os.cpu_count() or 1)

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task* in a process of its own; leaving ends the process."""
        async with (
            self._serving(task.env) as (process, port),
            served_episode(
                _dial(process, port),
                task,
                named=f"the process for {task.env!r}",
                pace=self._pace,
                trace_id=trace_id,
            ) as episode,
        ):
            yield episode

    @asynccontextmanager
    async def process(self, environment: str) -> AsyncGenerator[Dial, None]:
        """What connects to a process that serves *environment*; leaving ends the process.

        Raises:
            EnvironmentFailed: it does not start.
        """
        async with self._serving(environment) as (process, port):
            yield _dial(process, port)

    @asynccontextmanager
    async def _serving(self, environment: str) -> AsyncGenerator[tuple[anyio.abc.Process, int], None]:
        async with self._starting:
            owned = await self._started(environment)
            try:
                assert owned.process.stdout is not None
                output = BufferedByteReceiveStream(owned.process.stdout)
                port = await self._port(owned.process, output)
            except BaseException:
                await owned.kill()
                raise
        log.debug("environment.started", pid=owned.process.pid, environment=environment)
        try:
            async with crew() as group:
                group.start_soon(self._copy, output)
                group.start_soon(owned.end_with_it)
                yield owned.process, port
        finally:
            await owned.kill()

    async def _started(self, environment: str) -> OwnedProcess:
        words = {"{source}": str(self._source), "{env}": environment}
        command = [_filled(part, words) for part in self._command]
        home = self._source if self._source.is_dir() else self._source.parent
        try:
            return await OwnedProcess.start(
                [sys.executable, "-S", str(tether.__file__), *command],
                home=home,
                output=PIPE,
                errors=self._log_file,
            )
        except OSError as error:
            raise EnvironmentFailed(f"an environment process cannot be started: {error.strerror}") from error

    async def _port(self, process: anyio.abc.Process, output: BufferedByteReceiveStream) -> int:
        with anyio.move_on_after(self._pace.ready_s):
            try:
                while True:
                    line = (await output.receive_until(b"\n", LINE_LIMIT)).decode(errors="replace")
                    if line.startswith(ANNOUNCEMENT):
                        return int(line.removeprefix(ANNOUNCEMENT))
                    self._note(f"{line}\n".encode())
            except (anyio.EndOfStream, anyio.IncompleteRead):
                code = await process.wait()
                reason = f"ended with code {code} before it listened"
            except (anyio.DelimiterNotFound, ValueError):
                reason = f"printed something else than {ANNOUNCEMENT}<port>"
            raise EnvironmentFailed(f"the environment process {reason}; environments.log has what it printed")
        raise EnvironmentFailed(
            f"the environment process did not print {ANNOUNCEMENT}<port> in {self._pace.ready_s:g} s"
        )

    async def _copy(self, output: BufferedByteReceiveStream) -> None:
        # A pipe that nobody reads fills up, and then the environment waits in its next print.
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                self._note(await output.receive())

    def _note(self, printed: bytes) -> None:
        """Keep what was printed; on a full disk it is lost, and nothing else."""
        # Not through the buffer: it keeps what it could not write, and fails again when it is closed.
        with contextlib.suppress(OSError):
            os.write(self._log_file.fileno(), printed)


def _dial(process: anyio.abc.Process, port: int) -> Dial:
    """Connect to the process, as long as there is one."""
    there = tcp_dial("127.0.0.1", port)

    async def dial() -> anyio.abc.ByteStream:
        if process.returncode is not None:
            raise EnvironmentLost(f"the environment process ended with code {process.returncode}")
        return await there()

    return dial


def _filled(part: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        part = part.replace(word, value)
    return part
