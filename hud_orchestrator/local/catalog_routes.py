"""The catalog over HTTP: list, resolve, fork, checkpoints, head."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hud_orchestrator.local.replies import Refused, parse
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire import ForkRequest, SetHeadRequest


def catalog_routes(service: Service) -> list[Route]:
    """Routes under ``/v2/models``, and OpenAI's ``/v1/models``."""

    async def models(request: Request) -> Response:
        found = service.catalog.models()
        offset, limit = _number(request, "offset", 0), _number(request, "limit", len(found))
        page = [model.model_dump() for model in found[offset : offset + limit]]
        return JSONResponse({"items": page, "total": len(found)})

    async def openai_models(_request: Request) -> Response:
        data = [
            {"id": model.model_name, "object": "model", "created": 0, "owned_by": "local"}
            for model in service.catalog.models()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def resolve(request: Request) -> Response:
        return JSONResponse(service.catalog.find(request.query_params.get("model", "")).model_dump())

    async def fork(request: Request) -> Response:
        model = await service.fork(parse(ForkRequest, await request.body()))
        return JSONResponse(model.model_dump())

    async def checkpoints(request: Request) -> Response:
        model = service.catalog.find(request.path_params["id"])
        tree = service.catalog.forks.get(model.id)
        nodes = tree.checkpoints() if tree else []
        return JSONResponse([node.model_dump() for node in nodes])

    async def set_head(request: Request) -> Response:
        wanted = parse(SetHeadRequest, await request.body())
        trained = await service.trained(request.path_params["id"])
        await service.once.run(None, "", lambda: trained.set_head(wanted.checkpoint_id))
        return JSONResponse({"checkpoint_id": wanted.checkpoint_id})

    return [
        Route("/v2/models", models),
        Route("/v1/models", openai_models),
        Route("/v2/models/resolve", resolve),
        Route("/v2/models/fork", fork, methods=["POST"]),
        Route("/v2/models/{id}/checkpoints", checkpoints),
        Route("/v2/models/{id}/head", set_head, methods=["PUT"]),
    ]


def _number(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isdecimal():
        raise Refused(422, f"{name} must be a whole number from 0 on, got {given!r}")
    return int(given)
