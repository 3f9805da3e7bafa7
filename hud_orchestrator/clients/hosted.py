"""Rollouts that run elsewhere, whole: submitted, looked at until they are over, cancelled."""

from __future__ import annotations

import uuid
from typing import Any

from hud_orchestrator.clients.retry import READ, Retry
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.wire_hosting import RolloutCancel, RolloutSubmit, TraceState


class HostedRollouts:
    """The platform's routes for them. Every call may be repeated: a trace id is submitted once."""

    def __init__(self, api: Transport) -> None:
        self._api = api

    async def submit(self, asked: RolloutSubmit, *, retry: Retry = READ) -> None:
        """Have a rollout begun.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer in all of the tries.
            KeyRefused, RequestRejected: the platform said no.
        """
        body = asked.model_dump(mode="json", exclude_none=True)
        await self._api.read("POST", "/v2/rollouts/submit", reply=dict[str, Any], retry=retry, body=body)

    async def state(self, trace_id: str, *, retry: Retry = READ) -> TraceState:
        """What is known of it.

        Raises:
            As :meth:`submit`.
        """
        path = f"/v2/trace/{uuid.UUID(trace_id)}"
        return await self._api.read("GET", path, reply=TraceState, retry=retry)

    async def cancel(self, trace_id: str) -> None:
        """Have it ended.

        Raises:
            As :meth:`submit`.
        """
        body = RolloutCancel(trace_id=str(uuid.UUID(trace_id))).model_dump()
        await self._api.read("POST", "/v2/rollouts/cancel", reply=dict[str, Any], retry=READ, body=body)
