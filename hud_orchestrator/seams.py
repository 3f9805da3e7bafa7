"""Where a run touches the world, as values: a simulation puts others in their place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from hud_orchestrator.clients.transport import Network
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.edges import service
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.placements import placement
from hud_orchestrator.store.disk import Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What a run touches outside itself."""

    service: Callable[[LoadedRun, RunDirectory], AbstractAsyncContextManager[Addresses]] = service
    """Runs or finds the service for the length of a block."""
    placement: Callable[[LoadedRun, RunDirectory], AbstractAsyncContextManager[Placement]] = placement
    """Where environments run for the length of a block."""
    network: Network | None = None
    """Carries every request; ``None``: sockets do."""
    disk: Disk | None = None
    """Keeps the store; ``None``: a file does."""
