"""The lease of a fork over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.openapi import Endpoint
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire_writer import FENCING_TOKEN, WriterLease, WriterLeaseRequest


def lease_routes(service: Service) -> list[Endpoint]:
    """Routes at ``/v1/models/{id}/lease``."""
    calls = _Calls(service)
    path = "/v1/models/{id}/lease"
    return [
        Endpoint("GET", path, calls.show, "Who trains the model", reply=WriterLease, refusals=[404, 422]),
        Endpoint(
            "POST",
            path,
            calls.take,
            "Train the model alone; what has accumulated is discarded",
            body=WriterLeaseRequest,
            reply=WriterLease,
            refusals=[404, 409, 503, 507],
        ),
        Endpoint(
            "PUT",
            path,
            calls.hold,
            "Hold the lease for longer",
            reply=WriterLease,
            refusals=[404, 409, 422],
            headers=[FENCING_TOKEN],
        ),
        Endpoint(
            "DELETE",
            path,
            calls.release,
            "Give the lease back; nothing happens when it is over",
            reply=WriterLease,
            refusals=[404, 422, 507],
            headers=[FENCING_TOKEN],
        ),
    ]


def fencing_token(request: Request) -> int | None:
    """The token that a request shows, if it shows one.

    Raises:
        Refused: 422, it is no number.
    """
    given = request.headers.get(FENCING_TOKEN)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 20):
        raise Refused(422, f"{FENCING_TOKEN}: {given!r:.40} is no token; send the number that was given")
    return int(given)


@dataclass(frozen=True, slots=True)
class _Calls:
    """The handlers."""

    service: Service

    async def show(self, request: Request) -> Response:
        return JSONResponse(self.service.fence(request.path_params["id"]).state().model_dump())

    async def take(self, request: Request) -> Response:
        wanted, _ = await read_body(request, WriterLeaseRequest)
        # Before the model is loaded and what runs on it is waited for.
        self.service.fence(request.path_params["id"]).check(wanted)
        model = await self.service.trained(request.path_params["id"])
        given = await self.service.once.run(None, "", lambda: model.take_over(wanted))
        return JSONResponse(given.model_dump())

    async def hold(self, request: Request) -> Response:
        fence = self.service.fence(request.path_params["id"])
        fence.hold(_given(request))
        return JSONResponse(fence.state().model_dump())

    async def release(self, request: Request) -> Response:
        fence = self.service.fence(request.path_params["id"])
        await fence.release(_given(request))
        return JSONResponse(fence.state().model_dump())


def _given(request: Request) -> int:
    token = fencing_token(request)
    if token is None:
        raise Refused(422, f"{FENCING_TOKEN}: is missing; send the number that was given with the lease")
    return token
