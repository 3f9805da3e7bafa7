"""The application: every route, the key they need, and how refusals are answered."""

from __future__ import annotations

import hmac

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hud_orchestrator.local.catalog_routes import catalog_routes
from hud_orchestrator.local.chat import Chat
from hud_orchestrator.local.replies import GATEWAY_PATHS, Refused, refuse
from hud_orchestrator.local.report_routes import SDK_EVENTS_PATH, report_routes
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.train_routes import train_routes
from hud_orchestrator.logs import get_logger

log = get_logger()


def build_app(service: Service) -> Starlette:
    """The ASGI application that serves *service*; opening and closing it is the caller's."""
    chat = Chat(service)

    async def health(_request: Request) -> Response:
        loads = [engine.sampler.load() for engine in service.pool.loaded()]
        sampling, waiting = (sum(load[part] for load in loads) for part in (0, 1))
        return JSONResponse({"status": "ok", "sampling": sampling, "waiting": waiting})

    return Starlette(
        routes=[
            Route("/health", health),
            *(Route(path, chat.complete, methods=["POST"]) for path in GATEWAY_PATHS),
            *catalog_routes(service),
            *train_routes(service),
            *report_routes(service),
        ],
        middleware=[Middleware(_Keyed, api_key=service.settings.api_key.get_secret_value())],
        exception_handlers={Refused: refuse, HTTPException: _unknown, Exception: _bug},
    )


class _Keyed:
    """Answers 401 to requests without the key."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != SDK_EVENTS_PATH:
            given = dict(scope["headers"]).get(b"authorization", b"")
            # Compared in constant time, so that the key cannot be guessed byte by byte.
            if not hmac.compare_digest(given, self._expected):
                refusal = Refused(401, "the API key is missing or wrong")
                await refuse(Request(scope), refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refuse(request, Refused(error.status_code, str(error.detail)))


def _bug(request: Request, error: Exception) -> Response:
    log.error("request.failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
    return refuse(request, Refused(500, f"{type(error).__name__}: {error}"))
