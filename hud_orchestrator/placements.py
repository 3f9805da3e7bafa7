"""The run file's section ``runtime`` becomes a placement; a row of :data:`KINDS` for every kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.placement import placement_of
from hud_orchestrator.config.sources import environment_file
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.places import opened
from hud_orchestrator.environments.protocol import Placement
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
async def _here(loaded: LoadedRun, directory: RunDirectory) -> AsyncGenerator[Placement, None]:
    runtime, source = loaded.run.runtime, environment_file(loaded.run, loaded.resolve)
    with directory.environments_log.open("ab") as log_file:
        async with opened(
            placement_of(loaded.run, loaded.resolve),
            source=None if source is None else loaded.resolve(source),
            log_file=log_file,
            pace=Pace(ready_s=runtime.ready_timeout_s, teardown_s=runtime.teardown_s),
            recycle_after=runtime.recycle_after,
            command=runtime.command,
        ) as place:
            yield place


KINDS: dict[str, Callable[[LoadedRun, RunDirectory], Opened]] = {
    "local": _here,
    "in-process": _here,
    "subprocess": _here,
    "tcp": _here,
}
"""How each placement is opened, by the part of ``runtime.placement`` before ``://``."""
