"""Refusals, and the two shapes in which they are answered: the catalog's and OpenAI's."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.errors import OrchestratorError

GATEWAY_PATHS = ("/chat/completions", "/v1/chat/completions")
"""Paths whose errors have OpenAI's shape; a bare ``detail`` would lose its text in that client."""

Body = TypeVar("Body", bound=BaseModel)
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}


class Refused(OrchestratorError):
    """A request that is answered with *status* and one clear line, and changed nothing it does not name."""

    def __init__(self, status: int, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


def refuse(request: Request, refusal: Exception) -> Response:
    """The answer to a refused request, in the shape that its path's clients read."""
    assert isinstance(refusal, Refused)
    body: dict[str, Any] = {"detail": refusal.detail}
    if request.url.path in GATEWAY_PATHS:
        kind = _TYPES.get(refusal.status, "server_error")
        body["error"] = {"message": refusal.detail, "type": kind, "code": refusal.status}
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    elif request.url.path in GATEWAY_PATHS:
        # OpenAI's client repeats every 5xx and 409; only what says when to come back is worth it.
        headers["x-should-retry"] = "false"
    return JSONResponse(body, refusal.status, headers)


def parse(model: type[Body], raw: bytes, *, status: int = 422) -> Body:
    """Read a request body.

    Raises:
        Refused: it is not JSON, or not a *model*; the line names each wrong field.
    """
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise Refused(
            status, "; ".join(_mistake(one) for one in error.errors(include_url=False)[:5])
        ) from None


def _mistake(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
