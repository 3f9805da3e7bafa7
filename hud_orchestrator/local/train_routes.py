"""The training calls over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hud_orchestrator.local.once import check_same_body, digest_of
from hud_orchestrator.local.replies import parse
from hud_orchestrator.local.service import Service
from hud_orchestrator.losses.registry import BUILT_IN
from hud_orchestrator.wire import ForwardBackwardRequest, OptimStepRequest


def train_routes(service: Service) -> list[Route]:
    """Routes under ``/v1/models/{id}/train``."""

    async def losses(request: Request) -> Response:
        service.catalog.fork_of(request.path_params["id"])
        return JSONResponse({"losses": list(BUILT_IN)})

    async def forward_backward(request: Request) -> Response:
        trained = await service.trained(request.path_params["id"])
        body = await request.body()
        asked = parse(ForwardBackwardRequest, body)
        key = _key(request, trained.tree.record.id)
        result = await service.once.run(key, digest_of(body), lambda: trained.forward_backward(asked))
        return JSONResponse(result.model_dump())

    async def optim_step(request: Request) -> Response:
        trained = await service.trained(request.path_params["id"])
        body = await request.body()
        asked = parse(OptimStepRequest, body)
        key, digest = _key(request, trained.tree.record.id), digest_of(body)
        if key is not None and (node := trained.made_by(key)):
            check_same_body(node.request_digest, digest)
            return JSONResponse(trained.result(node).model_dump())
        result = await service.once.run(
            key, digest, lambda: trained.optim_step(asked, key=key, digest=digest)
        )
        return JSONResponse(result.model_dump())

    prefix = "/v1/models/{id}/train"
    return [
        Route(f"{prefix}/losses", losses),
        Route(f"{prefix}/forward-backward", forward_backward, methods=["POST"]),
        Route(f"{prefix}/optim-step", optim_step, methods=["POST"]),
    ]


def _key(request: Request, model_id: str) -> str | None:
    """The client's key, told apart from the same key for another model or route."""
    key = request.headers.get("Idempotency-Key")
    return f"{request.url.path.rsplit('/', 1)[-1]}:{model_id}:{key}" if key else None
