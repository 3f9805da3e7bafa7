"""What is hosted, from the start of the service to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.local.hosting.leases import Leases
from hud_orchestrator.local.hosting.rollouts import AT_ONCE, HostedRollouts
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.local.traces import Traces

RECYCLE_AFTER = 5000
"""Episodes after which a warm process is replaced."""

READY_S = 60.0
"""For a leased environment to listen."""

TEARDOWN_S = 2.0
"""For an environment to drop its episode before its process is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """Rollouts and environments that clients have asked for."""

    rollouts: HostedRollouts
    leases: Leases


@asynccontextmanager
async def hosting(
    settings: ServiceSettings, traces: Traces, sources: dict[str, Path], *, url: str
) -> AsyncGenerator[Hosting, None]:
    """Host for the length of the block; leaving it ends every rollout and every process.

    Args:
        settings: of the service.
        traces: told of rollouts.
        sources: which file defines the environment of a name.
        url: where the service itself answers.
    """
    async with AsyncExitStack() as stack:
        log_file = stack.enter_context((settings.state_dir / "environments.log").open("ab"))
        pools = {
            source: await stack.enter_async_context(
                ProcessPool(source, log_file=log_file, recycle_after=RECYCLE_AFTER, teardown_s=TEARDOWN_S)
            )
            for source in set(sources.values())
        }
        spawned = {
            source: Spawned(source, command=None, log_file=log_file, pace=Pace(ready_s=READY_S))
            for source in pools
        }
        servers = {name: spawned[source] for name, source in sources.items()}
        gateway = await stack.enter_async_context(Transport(url, settings.api_key, connections=AT_ONCE + 10))
        group = await stack.enter_async_context(anyio.create_task_group())
        yield Hosting(
            rollouts=HostedRollouts(
                {name: pools[source] for name, source in sources.items()},
                traces=traces,
                gateway=gateway,
                seed=settings.seed,
                group=group,
            ),
            leases=Leases(servers, group=group),
        )
        group.cancel_scope.cancel()
