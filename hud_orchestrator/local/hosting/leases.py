"""Environments that clients lease: a process each, until it is given back or nobody has used it for long."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc

from hud_orchestrator.environments.link import Dial
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.logs import get_logger

AT_ONCE = 256
"""Leases at a time."""

IDLE_S = 600.0
"""Seconds without a connection after which a lease is taken back: its client may have died."""

log = get_logger()


@dataclass(slots=True, kw_only=True)
class _Lease:
    environment: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    dial: Dial | None = None
    """To be had once it listens."""
    connections: int = 0
    failure: str | None = None


class Leases:
    """The environments that are out on lease."""

    def __init__(self, servers: Mapping[str, Spawned], *, group: anyio.abc.TaskGroup) -> None:
        """Lease the environments of *servers*, by their names."""
        self._servers = servers
        self._group = group
        self._leases: dict[str, _Lease] = {}

    async def lease(self, environment: str) -> str:
        """Start an environment, and return the id of its lease.

        Raises:
            Refused: 404, there is no such environment; 503, too many are out, or it did not start.
        """
        if environment not in self._servers:
            known = ", ".join(sorted(self._servers)) or "none; start it with --environments"
            raise Refused(404, f"there is no environment {environment!r} here; there are: {known}")
        if len(self._leases) >= AT_ONCE:
            raise Refused(503, f"{AT_ONCE} environments are out on lease", retry_after_s=5)
        key, lease = uuid.uuid4().hex, _Lease(environment=environment)
        self._leases[key] = lease
        await self._group.start(self._hold, key, lease, name=f"lease-{key}")
        if lease.failure is not None:
            raise Refused(503, f"environment {environment!r} did not start: {lease.failure}", retry_after_s=5)
        return key

    def give_back(self, key: str) -> None:
        """End a lease.

        Raises:
            Refused: 404, there is none.
        """
        self._of(key).scope.cancel("it was given back")
        del self._leases[key]

    @contextmanager
    def connection(self, key: str) -> Iterator[Dial]:
        """What connects to a lease's environment; the lease counts as used meanwhile.

        Raises:
            Refused: 404, there is no such lease.
        """
        lease = self._of(key)
        assert lease.dial is not None  # nobody knows the key of one that has not started
        lease.connections += 1
        lease.scope.deadline = math.inf
        try:
            yield lease.dial
        finally:
            lease.connections -= 1
            if not lease.connections:
                lease.scope.deadline = anyio.current_time() + IDLE_S

    def _of(self, key: str) -> _Lease:
        if key not in self._leases:
            raise Refused(404, f"there is no lease {key!r}; it was given back, or nobody used it for long")
        return self._leases[key]

    async def _hold(self, key: str, lease: _Lease, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            with lease.scope:
                async with self._servers[lease.environment].process(lease.environment) as lease.dial:
                    log.info("environment.leased", environment=lease.environment, lease=key)
                    task_status.started()
                    lease.scope.deadline = anyio.current_time() + IDLE_S
                    await anyio.sleep_forever()
        except EnvironmentFailed as failure:
            lease.failure = str(failure)
            task_status.started()
        finally:
            self._leases.pop(key, None)
            log.info("environment.returned", environment=lease.environment, lease=key, reason=lease.failure)
