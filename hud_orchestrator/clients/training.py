"""The training calls of one model."""

from __future__ import annotations

from hud_orchestrator.clients.retry import AT_START
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.records import CallId
from hud_orchestrator.wire import (
    ForwardBackwardRequest,
    ForwardBackwardResult,
    LossList,
    OptimStepRequest,
    OptimStepResult,
)


class Training:
    """``forward-backward`` and ``optim-step`` of one model, each sent once."""

    def __init__(self, transport: Transport, *, model_id: str, timeout_s: float) -> None:
        self._transport = transport
        self._path = f"/v1/models/{model_id}/train"
        self._timeout_s = timeout_s

    async def losses(self) -> list[str]:
        """Names of the losses built into the service."""
        return (
            await self._transport.read("GET", f"{self._path}/losses", reply=LossList, retry=AT_START)
        ).losses

    async def forward_backward(
        self, request: ForwardBackwardRequest, *, call: CallId
    ) -> ForwardBackwardResult:
        """Add a batch's gradient to what has accumulated."""
        return await self._transport.submit(
            f"{self._path}/forward-backward",
            request,
            reply=ForwardBackwardResult,
            call=call,
            timeout_s=self._timeout_s,
        )

    async def optim_step(self, request: OptimStepRequest, *, call: CallId) -> OptimStepResult:
        """Step on what has accumulated and promote the result."""
        return await self._transport.submit(
            f"{self._path}/optim-step", request, reply=OptimStepResult, call=call, timeout_s=self._timeout_s
        )
