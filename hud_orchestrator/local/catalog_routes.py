"""The catalog over HTTP: list, resolve, fork, checkpoints, head."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.catalog import canonical
from hud_orchestrator.local.lease_routes import fencing_token
from hud_orchestrator.local.openapi import Endpoint, Query
from hud_orchestrator.local.openapi.replies import HeadSet, OpenAIModels
from hud_orchestrator.local.query import whole_number
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire import Checkpoint, ForkRequest, Model, ModelPage, SetHeadRequest
from hud_orchestrator.wire_writer import FENCING_TOKEN

_PAGING = (
    Query(name="limit", text="Models at most; default: all."),
    Query(name="offset", text="Models to leave out in front."),
)


def catalog_routes(service: Service) -> list[Endpoint]:
    """Routes under ``/v2/models``, and OpenAI's ``/v1/models``."""
    calls = _Calls(service)
    listed = "The catalog, as OpenAI's clients read it"
    return [
        Endpoint("GET", "/v2/models", calls.models, "The catalog", reply=ModelPage, query=_PAGING),
        Endpoint("GET", "/v1/models", calls.openai_models, listed, reply=OpenAIModels),
        Endpoint("GET", "/models", calls.openai_models, listed, reply=OpenAIModels),
        Endpoint(
            "GET",
            "/v2/models/resolve",
            calls.resolve,
            "The model with a slug or an id",
            reply=Model,
            query=[Query(name="model", text="A slug or an id.", kind=str, required=True)],
            refusals=[404],
        ),
        Endpoint(
            "POST",
            "/v2/models/fork",
            calls.fork,
            "Make a trainable model from another model",
            body=ForkRequest,
            reply=Model,
            refusals=[404, 409, 410, 507],
        ),
        Endpoint(
            "GET",
            "/v2/models/{id}/checkpoints",
            calls.checkpoints,
            "The checkpoints of a model, oldest first",
            reply=list[Checkpoint],
            refusals=[404],
        ),
        Endpoint(
            "PUT",
            "/v2/models/{id}/head",
            calls.set_head,
            "Go to a checkpoint; what has accumulated is discarded",
            body=SetHeadRequest,
            reply=HeadSet,
            refusals=[404, 409, 410, 507],
            headers=[FENCING_TOKEN],
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Calls:
    """The handlers."""

    service: Service

    async def models(self, request: Request) -> Response:
        found = self.service.catalog.models()
        offset, limit = whole_number(request, "offset", 0), whole_number(request, "limit", len(found))
        page = [model.model_dump() for model in found[offset : offset + limit]]
        return JSONResponse({"items": page, "total": len(found)})

    async def openai_models(self, _request: Request) -> Response:
        data = [
            {"id": model.model_name, "object": "model", "created": 0, "owned_by": "local"}
            for model in self.service.catalog.models()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def resolve(self, request: Request) -> Response:
        handle = request.query_params.get("model")
        if handle is None:
            raise Refused(422, "model: is missing; ask with ?model= and a slug or an id")
        return JSONResponse(self.service.catalog.find(handle).model_dump())

    async def fork(self, request: Request) -> Response:
        wanted, _ = await read_body(request, ForkRequest)
        model = await self.service.once.run(None, "", lambda: self.service.fork(wanted))
        return JSONResponse(model.model_dump())

    async def checkpoints(self, request: Request) -> Response:
        model = self.service.catalog.find(request.path_params["id"])
        tree = self.service.catalog.forks.get(model.id)
        nodes = tree.checkpoints() if tree else []
        return JSONResponse([node.model_dump() for node in nodes])

    async def set_head(self, request: Request) -> Response:
        wanted, _ = await read_body(request, SetHeadRequest)
        token = fencing_token(request)
        trained = await self.service.trained(request.path_params["id"])
        checkpoint_id = canonical(wanted.checkpoint_id)
        await self.service.once.run(None, "", lambda: trained.set_head(checkpoint_id, token=token))
        return JSONResponse({"checkpoint_id": checkpoint_id})
