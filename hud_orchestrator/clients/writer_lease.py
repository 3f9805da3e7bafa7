"""The lease on a model that is trained. Environments on lease are in ``leases``."""

from __future__ import annotations

from dataclasses import dataclass

from hud_orchestrator.clients.retry import AT_START, ONCE, Retry
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.wire_writer import FENCING_TOKEN, WriterLease, WriterLeaseRequest

NO_LEASES = (404, 405, 501)
"""What a service answers that has no such route. Some say 401 or 403 then; a key that is really wrong is
refused at the next call, too."""


@dataclass(slots=True)
class FencingToken:
    """What every call of a run shows."""

    value: int | None = None
    """``None``: the service gives no leases, or none was taken yet."""

    @property
    def headers(self) -> dict[str, str]:
        """The header of a request."""
        return {} if self.value is None else {FENCING_TOKEN: str(self.value)}


class WriterLeases:
    """The routes at ``/v1/models/{id}/lease``, which HUD's own service does not have."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def show(self, model_id: str) -> WriterLease:
        """Who has the model.

        Raises:
            ServiceError: it is not told, perhaps because there are no leases.
        """
        return await self._asked("GET", model_id, retry=ONCE)

    async def take(self, model_id: str, wanted: WriterLeaseRequest) -> WriterLease:
        """Have the model alone. Asks once, and may be repeated: a claim is taken once.

        Raises:
            FencedOff: somebody else has it.
            RequestRejected, KeyRefused: see ``NO_LEASES``.
        """
        return await self._asked("POST", model_id, retry=ONCE, body=wanted.model_dump())

    async def hold(self, model_id: str, token: FencingToken) -> WriterLease:
        """Begin the lease's time anew.

        Raises:
            FencedOff: somebody else has come.
        """
        return await self._asked("PUT", model_id, retry=AT_START, headers=token.headers)

    async def release(self, model_id: str, token: FencingToken) -> None:
        """Give the model back."""
        await self._asked("DELETE", model_id, retry=AT_START, headers=token.headers)

    async def _asked(
        self,
        method: str,
        model_id: str,
        *,
        retry: Retry,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> WriterLease:
        path = f"/v1/models/{model_id}/lease"
        return await self._transport.read(
            method, path, reply=WriterLease, retry=retry, body=body, headers=headers
        )
