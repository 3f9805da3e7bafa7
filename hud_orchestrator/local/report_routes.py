"""Job and trace reporting: answered at once, for a slow answer delays every rollout."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hud_orchestrator.local.replies import parse
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire import TraceExit

SDK_EVENTS_PATH = "/v3/api/sdk-events/cli"
"""The one route without a key: the SDK's command line sends none."""

REMEMBERED_TRACES = 100_000
"""Rewards that are kept; the oldest go first."""


def report_routes(service: Service) -> list[Route]:
    """Routes of reporting and telemetry."""

    async def accept(_request: Request) -> Response:
        return JSONResponse({})

    async def leave(request: Request) -> Response:
        ended = parse(TraceExit, await request.body())
        service.rewards[request.path_params["id"]] = ended.reward
        while len(service.rewards) > REMEMBERED_TRACES:
            del service.rewards[next(iter(service.rewards))]
        return JSONResponse({})

    return [
        Route("/v2/trace/job/{id}/enter", accept, methods=["POST"]),
        Route("/v2/trace/{id}/enter", accept, methods=["POST"]),
        Route("/v2/trace/{id}/exit", leave, methods=["POST"]),
        Route("/v3/api/trace/{id}/telemetry-upload", accept, methods=["POST"]),
        Route(SDK_EVENTS_PATH, accept, methods=["POST"]),
    ]
