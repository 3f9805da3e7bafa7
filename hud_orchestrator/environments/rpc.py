"""JSON-RPC 2.0, one frame a line, as a server reads and writes it. Standard library only."""

from __future__ import annotations

import asyncio
import json
from typing import Any

FRAME_LIMIT = 16 * 2**20
"""Bytes of the longest frame, both ways, as the SDK has it."""

INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
FAILED = -32000
GRADER_FAILED = -32010
"""Ours: it was a grader that failed, and not the environment. To everybody else it is any error."""


class RpcError(Exception):
    """An error frame to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class FrameTooLarge(Exception):
    """The other side sent more than a frame may have."""


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next frame; ``None`` at the end, and for what is no frame, after which nothing can be trusted.

    Raises:
        FrameTooLarge: it has more than :data:`FRAME_LIMIT` bytes, the limit of *reader*.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        line = error.partial
    except asyncio.LimitOverrunError:
        raise FrameTooLarge(f"a frame has at most {FRAME_LIMIT} bytes") from None
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


# Made once: json.dumps() makes an encoder whenever it is asked for something special.
_written = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def result_frame(number: Any, result: dict[str, Any]) -> bytes:
    """A frame with a result.

    Raises:
        RpcError: the result is not JSON, or too large.
    """
    try:
        frame = {"jsonrpc": "2.0", "id": number, "result": result}
        line = _written(frame).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RpcError(FAILED, f"the environment's frame is not JSON: {error}") from None
    if len(line) > FRAME_LIMIT:
        raise RpcError(FAILED, f"the answer has {len(line)} bytes, and a frame at most {FRAME_LIMIT}")
    return line + b"\n"


def error_frame(number: Any, error: RpcError) -> bytes:
    """A frame with an error."""
    told = {"code": error.code, "message": str(error)[: FRAME_LIMIT // 16]}
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": told}).encode() + b"\n"
