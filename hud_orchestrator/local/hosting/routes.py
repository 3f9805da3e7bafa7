"""Routes of hosted rollouts and of leases."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.hosting.host import Hosting
from hud_orchestrator.local.hosting.leases import Leases
from hud_orchestrator.local.hosting.rollouts import HostedRollouts
from hud_orchestrator.local.openapi import Endpoint
from hud_orchestrator.local.openapi.replies import Accepted, Leased, RolloutAccepted, RolloutCancelled
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire_hosting import LeaseRequest, RolloutCancel, RolloutSubmit


def hosting_routes(service: Service, hosted: Hosting) -> list[Endpoint]:
    """Everything but the tunnels."""
    return [*_rollouts(service, hosted.rollouts), *_leases(hosted.leases)]


def _rollouts(service: Service, rollouts: HostedRollouts) -> list[Endpoint]:
    async def submit(request: Request) -> Response:
        asked, _ = await read_body(request, RolloutSubmit)
        _uuid(asked.trace_id)
        service.catalog.find(asked.agent.config.model)
        rollouts.submit(asked)
        return JSONResponse({"trace_id": asked.trace_id})

    async def cancel(request: Request) -> Response:
        asked, _ = await read_body(request, RolloutCancel)
        return JSONResponse({"cancelled": rollouts.cancel(asked.trace_id)})

    return [
        Endpoint(
            "POST",
            "/v2/rollouts/submit",
            submit,
            "Run a whole rollout here; its trace tells what becomes of it",
            body=RolloutSubmit,
            reply=RolloutAccepted,
            refusals=[404, 503],
        ),
        Endpoint(
            "POST",
            "/v2/rollouts/cancel",
            cancel,
            "End a rollout that was submitted",
            body=RolloutCancel,
            reply=RolloutCancelled,
            refusals=[404],
        ),
    ]


def _leases(leases: Leases) -> list[Endpoint]:
    async def lease(request: Request) -> Response:
        asked, _ = await read_body(request, LeaseRequest)
        key = await leases.lease(asked.environment)
        return JSONResponse({"id": key, "environment": asked.environment})

    async def give_back(request: Request) -> Response:
        leases.give_back(request.path_params["id"])
        return JSONResponse({})

    return [
        Endpoint(
            "POST",
            "/runtime/sessions",
            lease,
            "Start an environment, to be reached through a WebSocket at /runtime/tunnels/{id}",
            body=LeaseRequest,
            reply=Leased,
            refusals=[404, 503],
        ),
        Endpoint(
            "DELETE", "/runtime/sessions/{id}", give_back, "End a lease", reply=Accepted, refusals=[404]
        ),
    ]


def _uuid(text: str) -> None:
    try:
        uuid.UUID(text)
    except ValueError:
        raise Refused(422, f"trace_id: {text!r} is no UUID") from None
