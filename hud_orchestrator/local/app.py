"""The application: every route, the key they need, and how refusals are answered."""

from __future__ import annotations

import functools
import hmac
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hud_orchestrator.local.catalog_routes import catalog_routes
from hud_orchestrator.local.chat import Chat
from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.hosting.host import Hosting
from hud_orchestrator.local.hosting.routes import hosting_routes
from hud_orchestrator.local.hosting.tunnel import tunnel_route
from hud_orchestrator.local.lease_routes import lease_routes
from hud_orchestrator.local.openapi import Endpoint, describe
from hud_orchestrator.local.openapi.replies import ChatCompletion, Health
from hud_orchestrator.local.replies import GATEWAY_PATHS, OPENAI_PATHS, Refused, refuse
from hud_orchestrator.local.report_routes import SDK_EVENTS_PATH, report_routes
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.taskset_routes import taskset_routes
from hud_orchestrator.local.train_routes import train_routes
from hud_orchestrator.logs import get_logger

log = get_logger()


def build_app(service: Service, hosted: Hosting) -> Starlette:
    """The ASGI application of *service* and what it hosts; opening and closing them is the caller's."""
    chat = Chat(service)

    async def health(_request: Request) -> Response:
        loads = [engine.sampler.load() for engine in service.pool.loaded()]
        sampling, waiting = (sum(load[part] for load in loads) for part in (0, 1))
        return JSONResponse({"status": "ok", "sampling": sampling, "waiting": waiting})

    async def document(_request: Request) -> Response:
        return JSONResponse(described())

    routes = [
        Endpoint("GET", "/health", health, "Whether it runs, and how busy it is", reply=Health),
        Endpoint("GET", "/openapi.json", document, "This document", reply=dict[str, Any]),
        *(_gateway(path, chat) for path in GATEWAY_PATHS),
        *catalog_routes(service),
        *train_routes(service),
        *lease_routes(service),
        *report_routes(service),
        *taskset_routes(service),
        *hosting_routes(service, hosted),
    ]
    described = functools.cache(lambda: describe(routes, openai_paths=OPENAI_PATHS))
    app = Starlette(
        routes=[*routes, tunnel_route(hosted)],
        middleware=[Middleware(_Keyed, api_key=service.settings.api_key.get_secret_value())],
        exception_handlers={Refused: refuse, HTTPException: _unknown, Exception: _bug},
    )
    # To a client of this service a redirect is an error, and one that says less than 404.
    app.router.redirect_slashes = False
    return app


def _gateway(path: str, chat: Chat) -> Endpoint:
    return Endpoint(
        "POST",
        path,
        chat.complete,
        "Sample a reply to a conversation",
        body=ChatRequest,
        wrong=400,
        reply=ChatCompletion,
        refusals=[404, 409, 422, 503],
        headers=["Trace-Id"],
        streams=True,
    )


class _Keyed:
    """Answers 401 to requests without the key."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] != SDK_EVENTS_PATH:
            given = dict(scope["headers"]).get(b"authorization", b"")
            # Compared in constant time, so that the key cannot be guessed byte by byte.
            if not hmac.compare_digest(given, self._expected):
                await _turn_away(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    answer = refuse(HTTPConnection(scope), Refused(401, "the API key is missing or wrong"))
    answer.headers["WWW-Authenticate"] = "Bearer"
    await answer(scope, receive, send)


def _unknown(request: Request, error: Exception) -> Response:
    """What the router itself refuses: a path that is not there, or its method."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return refuse(request, Refused(404, f"{asked}: there is no such path; GET /openapi.json tells all"))
    allowed = (error.headers or {}).get("Allow", "")
    answer = refuse(request, Refused(error.status_code, f"{asked}: this path takes {allowed}"))
    answer.headers["Allow"] = allowed
    return answer


def _bug(request: Request, error: Exception) -> Response:
    log.error("request.failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
    return refuse(request, Refused(500, f"{type(error).__name__}: {error}"))
