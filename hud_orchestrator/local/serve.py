"""Run the service until it is cancelled or told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import IO

import anyio
import torch
import uvicorn
from starlette.applications import Starlette

from hud_orchestrator.errors import ConfigError, StateInUse, StateUnwritable
from hud_orchestrator.local.app import build_app
from hud_orchestrator.local.catalog import Catalog
from hud_orchestrator.local.hosting.host import hosting
from hud_orchestrator.local.hosting.sources import find_environments
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.logs import get_logger

log = get_logger()

KEEP_ALIVE_S = 120
"""Idle connections stay open this long: clients keep theirs, and must not find them closed."""

FRAME_LIMIT = 32 * 2**20
"""Bytes of one WebSocket message: more than any frame of the control protocol has."""

LOCK_LOOK_S = 0.1

DRAIN_S = 25
"""Longest wait for answers in hand after the end was asked for."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, and with a word when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


async def serve(settings: ServiceSettings, *, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; then finish the optimizer step in hand, refuse the rest, and return.

    Args:
        settings: what to serve and where.
        ready: called with the service's URL once requests are accepted.

    Raises:
        StateInUse: another service has the state directory.
        StateUnwritable: the state directory cannot be made or written.
        ConfigError: the port is taken, the address is not one of this machine, or an environment cannot
            be imported.
    """
    if settings.deterministic:
        # cuBLAS wants this before it starts; the CPU ignores it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    async with _held(settings.state_dir, wait_s=settings.state_wait_s):
        await _serve(settings, ready)


async def _serve(settings: ServiceSettings, ready: Callable[[str], None]) -> None:
    with _listening(settings) as listener:
        catalog = await asyncio.to_thread(Catalog, settings.state_dir, settings.bases)
        sources = await find_environments(settings.environments)
        service = Service(settings, catalog)
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        async with hosting(settings, service.traces, sources, url=url) as hosted:
            server = _Server(_config(build_app(service, hosted)), lambda: _announce(url, ready))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await asyncio.shield(serving)
            finally:
                with anyio.move_on_after(DRAIN_S, shield=True):
                    await service.close()
                    server.should_exit = True
                    await serving
                log.info("service.stopped", url=url)


async def serve_until_told(
    settings: ServiceSettings, *, ready: Callable[[str], None], told: asyncio.Event | None = None
) -> None:
    """``serve``, and end when *told* is set; without it, on SIGTERM or on SIGINT."""
    with _signals() if told is None else contextlib.nullcontext(told) as end:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await serve(settings, ready=ready)
                end.set()

            group.start_soon(run)
            await end.wait()
            group.cancel_scope.cancel()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=FRAME_LIMIT,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )


def _announce(url: str, ready: Callable[[str], None]) -> None:
    log.info("service.started", url=url)
    ready(url)


@contextlib.contextmanager
def _listening(settings: ServiceSettings) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ConfigError(f"cannot listen on {where}: {error.strerror}; choose another port") from error
        yield listener


@contextlib.asynccontextmanager
async def _held(state_dir: Path, *, wait_s: float) -> AsyncGenerator[None, None]:
    """Hold the state directory; the kernel lets go of it when the process dies."""
    with _lock_file(state_dir) as file:
        until = anyio.current_time() + wait_s
        while not _locked(file):
            if anyio.current_time() >= until:
                raise StateInUse(f"{state_dir} is used by another service; end that one, or wait for it")
            await anyio.sleep(LOCK_LOOK_S)
        yield


def _lock_file(state_dir: Path) -> IO[str]:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        return (state_dir / "lock").open("a")
    except OSError as error:
        raise StateUnwritable(f"{state_dir} cannot be used: {error.strerror}") from error


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
