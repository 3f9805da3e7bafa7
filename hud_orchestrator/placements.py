"""The run file's section ``runtime`` becomes a placement; a row of :data:`KINDS` for every kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio.to_thread

from hud_orchestrator.clients.leases import Leases
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.placement import placement_of
from hud_orchestrator.config.sources import environment_file
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.environments.containers import Containers
from hud_orchestrator.environments.engine import Engine
from hud_orchestrator.environments.hud import Provided, Provider
from hud_orchestrator.environments.leased import Leased
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.places import opened
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.errors import ConfigError, KeyRefused
from hud_orchestrator.settings import Settings

SANDBOXES: dict[str, Provider] = {"modal": "ModalRuntime", "daytona": "DaytonaRuntime"}
"""Classes of HUD's SDK."""

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
            pace=_pace(loaded),
            recycle_after=runtime.recycle_after,
            command=runtime.command,
        ) as place:
            yield place


@asynccontextmanager
async def _docker(loaded: LoadedRun, directory: RunDirectory) -> AsyncGenerator[Placement, None]:
    runtime = loaded.run.runtime
    # The run's directory is held by one daemon at a time, and so are containers with its name on them.
    engine = await anyio.to_thread.run_sync(Engine, str(directory.path.absolute()))
    async with Containers(
        engine, image=runtime.image, port=runtime.port, environ=runtime.environ, pace=_pace(loaded)
    ) as containers:
        yield containers


@asynccontextmanager
async def _hud(loaded: LoadedRun, _: RunDirectory) -> AsyncGenerator[Placement, None]:
    settings = Settings.load()
    if settings.api_key is None:
        raise KeyRefused("HUD_API_KEY is not set, and runtime.placement: hud needs it to lease environments")
    connections = loaded.run.rollout.concurrency + 10
    async with Transport(settings.runtime_url, settings.api_key, connections=connections) as runtime:
        yield Leased(Leases(runtime), pace=_pace(loaded))


@asynccontextmanager
async def _sandbox(loaded: LoadedRun, _: RunDirectory) -> AsyncGenerator[Placement, None]:
    provider = SANDBOXES[placement_of(loaded.run, loaded.resolve)]
    async with Provided(provider, loaded.run.runtime.options, pace=_pace(loaded)) as provided:
        yield provided


def _pace(loaded: LoadedRun) -> Pace:
    runtime = loaded.run.runtime
    return Pace(ready_s=runtime.ready_timeout_s, teardown_s=runtime.teardown_s)


KINDS: dict[str, Callable[[LoadedRun, RunDirectory], Opened]] = {
    "local": _here,
    "in-process": _here,
    "subprocess": _here,
    "tcp": _here,
    "docker": _docker,
    "hud": _hud,
    "modal": _sandbox,
    "daytona": _sandbox,
}
"""How each placement is opened, by the part of ``runtime.placement`` before ``://``."""
