"""Refusals, and the two shapes in which they are answered: the catalog's and OpenAI's."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from hud_orchestrator.errors import OrchestratorError
from hud_orchestrator.wire_writer import FENCING_TOKEN

GATEWAY_PATHS = ("/chat/completions", "/v1/chat/completions")
"""Paths of chat completions."""

OPENAI_PATHS = (*GATEWAY_PATHS, "/models", "/v1/models")
"""Paths whose errors have OpenAI's shape; a bare ``detail`` would lose its text in that client."""

LONGEST_DETAIL = 2**16
"""Characters. Enough to name a thousand trace ids."""

Body = TypeVar("Body", bound=BaseModel)
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}


class Refused(OrchestratorError):
    """A request that is answered with *status* and one clear line, and changed nothing it does not name."""

    def __init__(
        self, status: int, detail: str, *, retry_after_s: int | None = None, newest_token: int | None = None
    ) -> None:
        # What a client sent may be quoted in it, line breaks and megabytes included.
        self.detail = " ".join(detail[:LONGEST_DETAIL].split())
        super().__init__(self.detail)
        self.status = status
        self.retry_after_s = retry_after_s
        self.newest_token = newest_token
        """Of the model's lease, when that is the reason."""


def refuse(request: HTTPConnection, refusal: Exception) -> Response:
    """The answer to a refused request, in the shape that its path's clients read."""
    assert isinstance(refusal, Refused)
    body: dict[str, Any] = {"detail": refusal.detail}
    if request.url.path in OPENAI_PATHS:
        body |= openai_error(refusal)
    headers = {}
    if refusal.newest_token is not None:
        headers[FENCING_TOKEN] = str(refusal.newest_token)
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    elif request.url.path in OPENAI_PATHS:
        # OpenAI's client repeats every 5xx and 409; only what says when to come back is worth it.
        headers["x-should-retry"] = "false"
    return JSONResponse(body, refusal.status, headers)


def openai_error(refusal: Refused) -> dict[str, Any]:
    """The refusal as OpenAI's clients read it."""
    kind = _TYPES.get(refusal.status, "server_error")
    return {"error": {"message": refusal.detail, "type": kind, "param": None, "code": refusal.status}}


def parse(model: type[Body], raw: bytes, *, status: int = 422, strict: bool | None = None) -> Body:
    """Read a request body; when *strict*, a string or a bool is no number, and 5.0 no integer.

    Raises:
        Refused: it is not JSON, or not a *model*; the line names each wrong field.
    """
    try:
        return model.model_validate_json(raw, strict=strict)
    except ValidationError as error:
        raise Refused(
            status, "; ".join(_mistake(one) for one in error.errors(include_url=False)[:5])
        ) from None


def _mistake(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])
