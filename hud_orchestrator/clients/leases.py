"""Environments that somebody else runs, on lease, and the tunnels to them."""

from __future__ import annotations

import uuid
from typing import Any

import anyio
import anyio.abc

from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import OrchestratorError
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire_hosting import Lease, LeaseRequest

ONCE = Retry(attempts=1, first_wait_s=0, longest_wait_s=0)
"""A lease whose answer was lost would be paid for and never given back: who wants one asks anew."""

GIVE_BACK = Retry(attempts=3, first_wait_s=0.5, longest_wait_s=2)

log = get_logger()


class Leases:
    """The routes under ``/runtime``."""

    def __init__(self, runtime: Transport) -> None:
        self._runtime = runtime

    async def lease(self, environment: str, *, trace_id: str | None) -> str:
        """Have an environment started; the id of its lease.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer.
            KeyRefused, RequestRejected: refused.
        """
        dashed = None if trace_id is None else str(uuid.UUID(trace_id))
        body = LeaseRequest(environment=environment, trace_id=dashed).model_dump(exclude_none=True)
        lease = await self._runtime.read("POST", "/runtime/sessions", reply=Lease, retry=ONCE, body=body)
        return lease.id

    async def give_back(self, lease: str, *, within_s: float) -> None:
        """End a lease. Nothing can be done about one that cannot be ended but to say so."""
        with anyio.move_on_after(within_s, shield=True) as patience:
            try:
                await self._runtime.read(
                    "DELETE", f"/runtime/sessions/{lease}", reply=dict[str, Any], retry=GIVE_BACK
                )
            except OrchestratorError as error:
                log.warning("environment.not_returned", lease=lease, reason=str(error))
        if patience.cancelled_caught:
            log.warning("environment.not_returned", lease=lease, reason=f"no answer in {within_s:g} s")

    async def connect(self, lease: str) -> anyio.abc.ByteStream:
        """Open a connection to the control port of a leased environment.

        Raises:
            OSError: the tunnel cannot be opened.
        """
        return await self._runtime.tunnel(f"/runtime/tunnels/{lease}")
