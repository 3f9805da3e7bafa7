"""The run file's section ``runtime`` becomes a placement; a row of :data:`KINDS` for every kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.placement import placement_of, tcp_address
from hud_orchestrator.config.sources import named_source
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.served import Served
from hud_orchestrator.environments.source import SourceMistake
from hud_orchestrator.errors import ConfigError

Opened = AbstractAsyncContextManager[Placement]


def placement(loaded: LoadedRun, directory: RunDirectory) -> Opened:
    """Where environments run for the length of the block.

    Raises:
        ConfigError: there is no such placement, or its source cannot be imported.
    """
    chosen = placement_of(loaded.run, loaded.resolve)
    kind = chosen.partition("://")[0]
    if kind not in KINDS:
        raise ConfigError(f"runtime.placement: {chosen!r} is not built in; there are: {', '.join(KINDS)}")
    return KINDS[kind](loaded, directory)


@asynccontextmanager
async def _local(loaded: LoadedRun, directory: RunDirectory) -> AsyncGenerator[Placement, None]:
    runtime = loaded.run.runtime
    with directory.environments_log.open("ab") as log_file:
        async with ProcessPool(
            _source(loaded),
            log_file=log_file,
            recycle_after=runtime.recycle_after,
            teardown_s=runtime.teardown_s,
        ) as pool:
            yield pool


@asynccontextmanager
async def _in_process(loaded: LoadedRun, _: RunDirectory) -> AsyncGenerator[Placement, None]:
    try:
        yield InProcess(_source(loaded), teardown_s=loaded.run.runtime.teardown_s)
    except SourceMistake as error:
        raise ConfigError(f"runtime.source: {error}") from error


@asynccontextmanager
async def _tcp(loaded: LoadedRun, _: RunDirectory) -> AsyncGenerator[Placement, None]:
    runtime = loaded.run.runtime
    address = tcp_address(placement_of(loaded.run, loaded.resolve))
    assert address is not None  # the run file was checked
    pace = Pace(ready_s=runtime.ready_timeout_s, teardown_s=runtime.teardown_s)
    yield Served(*address, pace=pace)


def _source(loaded: LoadedRun) -> Path:
    train = named_source(loaded.run.taskset.train, loaded.resolve)
    return loaded.resolve(loaded.run.runtime.source or train.name)


KINDS: dict[str, Callable[[LoadedRun, RunDirectory], Opened]] = {
    "local": _local,
    "in-process": _in_process,
    "tcp": _tcp,
}
"""How each placement is opened, by the part of ``runtime.placement`` before ``://``."""
