"""The training calls over HTTP.

An answer is sent when its outcome is known, however long that takes; nothing is sent before, to keep
a connection alive. Headers sent early would fix the status at 200 and leave a refusal no way to be
told, and clients wait 600 s in silence, which a step of what this service can hold stays below. A
client that gives up finds the outcome in the checkpoint list, or repeats with its Idempotency-Key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.lease_routes import fencing_token
from hud_orchestrator.local.once import check_same_body, digest_of
from hud_orchestrator.local.openapi import Endpoint
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.trained_model import TrainedModel
from hud_orchestrator.losses.registry import BUILT_IN
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
from hud_orchestrator.wire_writer import FENCING_TOKEN

Body = TypeVar("Body", bound=BaseModel)
_REFUSALS = (404, 409, 503, 507)
_HEADERS = ("Idempotency-Key", FENCING_TOKEN)


def train_routes(service: Service) -> list[Endpoint]:
    """Routes under ``/v1/models/{id}/train``."""
    calls = _Calls(service)
    prefix = "/v1/models/{id}/train"
    return [
        Endpoint(
            "GET",
            f"{prefix}/losses",
            calls.losses,
            "The built-in losses",
            reply=LossList,
            refusals=[404, 422],
        ),
        Endpoint(
            "POST",
            f"{prefix}/forward-backward",
            calls.forward_backward,
            "Add the gradient of a built-in loss to what has accumulated",
            body=ForwardBackwardRequest,
            reply=ForwardBackwardResult,
            refusals=_REFUSALS,
            headers=_HEADERS,
        ),
        Endpoint(
            "POST",
            f"{prefix}/forward",
            calls.forward,
            "Log-probabilities of a batch, for a loss on the client's side",
            body=ForwardRequest,
            reply=ForwardResult,
            refusals=_REFUSALS,
            headers=_HEADERS,
        ),
        Endpoint(
            "POST",
            f"{prefix}/backward",
            calls.backward,
            "Add the gradient of the client's loss, and use its forward up",
            body=BackwardRequest,
            reply=ForwardBackwardResult,
            refusals=_REFUSALS,
            headers=_HEADERS,
        ),
        Endpoint(
            "POST",
            f"{prefix}/optim-step",
            calls.optim_step,
            "Step on what has accumulated, save a checkpoint, make it the head",
            body=OptimStepRequest,
            reply=OptimStepResult,
            refusals=_REFUSALS,
            headers=[*_HEADERS, KEEP_CHECKPOINTS],
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Call(Generic[Body]):
    model: TrainedModel
    body: Body
    key: str | None
    """The client's key, told apart from the same key for another model or route."""
    digest: str
    token: int | None


async def _read(service: Service, request: Request, kind: type[Body]) -> _Call[Body]:
    body, raw = await read_body(request, kind)
    model = await service.trained(request.path_params["id"])
    key = request.headers.get("Idempotency-Key")
    route = request.url.path.rsplit("/", 1)[-1]
    scoped = f"{route}:{model.tree.record.id}:{key}" if key else None
    return _Call(model, body, scoped, digest_of(raw), fencing_token(request))


def _answer(result: BaseModel) -> Response:
    # pydantic writes long lists of numbers many times faster than the json module.
    return Response(result.model_dump_json(), media_type="application/json")


@dataclass(frozen=True, slots=True)
class _Calls:
    """The handlers."""

    service: Service

    async def losses(self, request: Request) -> Response:
        self.service.catalog.fork_of(request.path_params["id"])
        return JSONResponse({"losses": list(BUILT_IN)})

    async def forward_backward(self, request: Request) -> Response:
        call = await _read(self.service, request, ForwardBackwardRequest)

        async def work() -> ForwardBackwardResult:
            inputs = self.service.trajectories(call.body.inputs)
            return await call.model.forward_backward(call.body, inputs, token=call.token)

        return _answer(await self.service.once.run(call.key, call.digest, work))

    async def forward(self, request: Request) -> Response:
        call = await _read(self.service, request, ForwardRequest)

        async def work() -> ForwardResult:
            inputs = self.service.trajectories(call.body.inputs)
            return await call.model.forward(call.body, inputs, token=call.token)

        return _answer(await self.service.once_large.run(call.key, call.digest, work))

    async def backward(self, request: Request) -> Response:
        call = await _read(self.service, request, BackwardRequest)
        return _answer(
            await self.service.once.run(
                call.key, call.digest, lambda: call.model.backward(call.body, token=call.token)
            )
        )

    async def optim_step(self, request: Request) -> Response:
        call = await _read(self.service, request, OptimStepRequest)
        key, digest, model = call.key, call.digest, call.model
        if key is not None and (node := model.made_by(key)):
            check_same_body(node.request_digest, digest)
            return _answer(model.result(node))
        keep = request.headers.get(KEEP_CHECKPOINTS, "").replace(",", " ").split()
        return _answer(
            await self.service.once.run(
                key,
                digest,
                lambda: model.optim_step(call.body, token=call.token, key=key, digest=digest, keep=keep),
            )
        )
