"""The training calls of one model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel

from hud_orchestrator.clients.retry import AT_START
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.clients.writer_lease import FencingToken
from hud_orchestrator.records import CallId
from hud_orchestrator.wire import (
    KEEP_CHECKPOINTS,
    BackwardRequest,
    ForwardBackwardRequest,
    ForwardBackwardResult,
    ForwardRequest,
    ForwardResult,
    LossList,
    OptimStepRequest,
    OptimStepResult,
)

T = TypeVar("T")


class Training:
    """The four calls of one model, each sent once."""

    def __init__(
        self, transport: Transport, *, model_id: str, timeout_s: float, token: FencingToken | None = None
    ) -> None:
        """Train *model_id*; every call shows the *token* that is the newest when it leaves."""
        self._transport = transport
        self._path = f"/v1/models/{model_id}/train"
        self._timeout_s = timeout_s
        self._token = token or FencingToken()

    async def losses(self) -> list[str]:
        """Names of the losses built into the service."""
        return (
            await self._transport.read("GET", f"{self._path}/losses", reply=LossList, retry=AT_START)
        ).losses

    async def forward_backward(
        self, request: ForwardBackwardRequest, *, call: CallId
    ) -> ForwardBackwardResult:
        """Add a batch's gradient, by a loss of the service, to what has accumulated."""
        return await self._submit("forward-backward", request, ForwardBackwardResult, call)

    async def forward(self, request: ForwardRequest, *, call: CallId) -> ForwardResult:
        """The current policy's log-probabilities of a batch, for a loss of our own."""
        return await self._submit("forward", request, ForwardResult, call)

    async def backward(self, request: BackwardRequest, *, call: CallId) -> ForwardBackwardResult:
        """Add the gradient of a loss of our own to what has accumulated."""
        return await self._submit("backward", request, ForwardBackwardResult, call)

    async def optim_step(
        self, request: OptimStepRequest, *, call: CallId, keep: Collection[str] = ()
    ) -> OptimStepResult:
        """Step on what has accumulated and promote the result; checkpoints to *keep* are not pruned then."""
        headers = {KEEP_CHECKPOINTS: ",".join(sorted(keep))} if keep else {}
        return await self._submit("optim-step", request, OptimStepResult, call, headers)

    async def _submit(
        self,
        name: str,
        request: BaseModel,
        reply: type[T],
        call: CallId,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> T:
        return await self._transport.submit(
            f"{self._path}/{name}",
            request,
            reply=reply,
            call=call,
            timeout_s=self._timeout_s,
            headers={**self._token.headers, **headers},
        )
