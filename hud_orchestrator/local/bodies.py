"""Read the body of a request, up to a limit."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from hud_orchestrator.local.replies import Refused, parse

Body = TypeVar("Body", bound=BaseModel)

MAX_BODY = 64 * 2**20
"""Bytes: two to three million tokens with their log-probabilities. Larger batches are sent in
several calls, whose gradients add up."""


async def read_body(request: Request, kind: type[Body], *, wrong: int = 422) -> tuple[Body, bytes]:
    """The body as a *kind*, with JSON's own types and no conversions, and as it was sent.

    Raises:
        Refused: 413, it is too long; *wrong*, it is not JSON or not a *kind*.
    """
    raw = await read_bytes(request)
    return parse(kind, raw, status=wrong, strict=True), raw


async def read_bytes(request: Request) -> bytes:
    """The body as it was sent.

    Raises:
        Refused: 413, it is too long; 499, which nobody sees: the client has gone away.
    """
    declared = request.headers.get("content-length", "0")
    received = bytearray()
    # Longer numbers than these are too long in any case, and Python refuses to read numbers of thousands.
    if len(declared) < 20 and (not declared.isdecimal() or int(declared) <= MAX_BODY):
        try:
            async for chunk in request.stream():
                received += chunk
                if len(received) > MAX_BODY:
                    break
            else:
                return bytes(received)
        except ClientDisconnect:
            raise Refused(499, "the client has gone away") from None
    raise Refused(413, f"the body is longer than {MAX_BODY >> 20} MiB; send the batch in several calls")
