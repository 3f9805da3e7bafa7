"""The placements that need no more than this machine and a socket, by the words of a run file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from hud_orchestrator.config.placement import FROM_SOURCE, tcp_address
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.served import Served
from hud_orchestrator.environments.source import SourceMistake
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.errors import ConfigError


@asynccontextmanager
async def opened(
    placement: str,
    *,
    source: Path | None,
    log_file: IO[bytes],
    pace: Pace,
    recycle_after: int = 5000,
    command: Sequence[str] | None = None,
) -> AsyncGenerator[Placement, None]:
    """Where episodes run for the length of the block.

    Args:
        placement: ``local``, ``in-process``, ``subprocess`` or ``tcp://host:port``.
        source: the file that defines the environments; ``tcp`` needs none.
        log_file: gets what environment processes print.
        pace: how long an environment may take to be there, and to let a task go.
        recycle_after: episodes of one warm process, with ``local``.
        command: what starts a process, with ``subprocess``.

    Raises:
        ConfigError: there is no such placement, or its source is missing or cannot be imported.
    """
    address = tcp_address(placement)
    if address is not None:
        yield Served(*address, pace=pace)
        return
    if placement not in FROM_SOURCE:
        allowed = ", ".join((*FROM_SOURCE, "tcp://host:port"))
        raise ConfigError(f"there is no placement {placement!r} here; allowed: {allowed}")
    if source is None:
        raise ConfigError(f"placement {placement!r} needs the .py file that defines the environments")
    if placement == "in-process":
        yield _in_process(source, pace)
    elif placement == "subprocess":
        yield Spawned(source, command=command, log_file=log_file, pace=pace)
    else:
        async with ProcessPool(
            source, log_file=log_file, recycle_after=recycle_after, teardown_s=pace.teardown_s
        ) as pool:
            yield pool


def _in_process(source: Path, pace: Pace) -> InProcess:
    try:
        return InProcess(source, teardown_s=pace.teardown_s)
    except SourceMistake as error:
        raise ConfigError(f"runtime.source: {error}") from error
