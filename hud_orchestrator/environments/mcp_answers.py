"""The tools of an environment as an MCP server: streamable HTTP without streams, a path for each session.

Small enough to need no framework: an environment process starts at once. Every answer is one JSON object;
the server never speaks by itself, and keeps nothing but what the sessions have.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11

from hud_orchestrator.environments.rpc import (
    FAILED,
    FRAME_LIMIT,
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNKNOWN_METHOD,
    RpcError,
    error_frame,
    result_frame,
)
from hud_orchestrator.environments.runner import TaskMistake
from hud_orchestrator.environments.sessions import Sessions

NAME = "tools"
"""Of the capability."""
PROTOCOL = "mcp/2025-11-25"
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Of MCP, the newest first; the older ones say the same about tools."""

Reply = tuple[int, bytes]


def tools_binding(session: str, port: int) -> dict[str, Any]:
    """The capability as a session's manifest has it: the path says whose tools they are."""
    url = f"http://127.0.0.1:{port}/{session}/mcp"
    return {"name": NAME, "protocol": PROTOCOL, "url": url, "params": {"transport": "streamable-http"}}


async def answer_http(sessions: Sessions, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one HTTP connection until it closes."""
    connection = h11.Connection(h11.SERVER)
    try:
        while (asked := await _request(connection, reader)) is not None:
            reply = await _unless_gone(_reply(sessions, *asked), connection, reader)
            if reply is None:
                return
            await _send(connection, writer, *reply)
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except (h11.RemoteProtocolError, ConnectionError):
        return  # whoever speaks no HTTP gets no answer


async def _request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request, bytes] | None:
    request: h11.Request | None = None
    body = bytearray()
    while len(body) <= FRAME_LIMIT:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body)
        else:
            return None
    return None


async def _unless_gone(work: Any, connection: h11.Connection, reader: asyncio.StreamReader) -> Reply | None:
    """The reply; ``None`` when the other side goes away meanwhile, which interrupts the tool."""
    answering: asyncio.Task[Reply] = asyncio.create_task(work)
    listening = asyncio.create_task(reader.read(65536))
    try:
        while not answering.done():
            await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not answering.done():
                if not (more := listening.result()):
                    return None
                connection.receive_data(more)
                listening = asyncio.create_task(reader.read(65536))
        return answering.result()
    finally:
        answering.cancel()
        await _stop_listening(listening, connection)


async def _stop_listening(listening: asyncio.Task[bytes], connection: h11.Connection) -> None:
    # A read that is cancelled leaves its bytes in the reader; one that is done has taken them.
    listening.cancel()
    await asyncio.wait({listening})
    if not listening.cancelled() and listening.exception() is None and listening.result():
        connection.receive_data(listening.result())


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    headers = [("content-length", str(len(body)))]
    if body:
        headers.append(("content-type", "application/json"))
    for event in (
        h11.Response(status_code=status, headers=headers),
        h11.Data(data=body),
        h11.EndOfMessage(),
    ):
        writer.write(connection.send(event) or b"")
    await writer.drain()


async def _reply(sessions: Sessions, request: h11.Request, body: bytes) -> Reply:
    session, _, place = request.target.decode("ascii", "replace").strip("/").partition("/")
    if place.partition("?")[0] != "mcp":
        return 404, b""
    if request.method != b"POST":
        return 405, b""  # there is no stream to listen to, and no session to end
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError):
        return 400, error_frame(None, RpcError(INVALID_REQUEST, "the body is not JSON"))
    if not isinstance(frame, dict):
        return 400, error_frame(None, RpcError(INVALID_REQUEST, "the body is not one JSON-RPC message"))
    if frame.get("id") is None or "method" not in frame:
        return 202, b""  # a notification, or an answer to what nobody asked
    try:
        return 200, result_frame(frame["id"], await _result(sessions, session, frame))
    except RpcError as error:
        return 200, error_frame(frame["id"], error)
    except Exception as error:
        return 200, error_frame(frame["id"], RpcError(FAILED, f"{type(error).__name__}: {error}"))


async def _result(sessions: Sessions, session: str, frame: dict[str, Any]) -> dict[str, Any]:
    method, params = frame["method"], frame.get("params") or {}
    if method == "initialize":
        return _introduction(sessions, params)
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": _tools(sessions)}
    if method == "tools/call":
        return await _called(sessions, session, params)
    raise RpcError(UNKNOWN_METHOD, f"method not found: {method}")


def _introduction(sessions: Sessions, params: dict[str, Any]) -> dict[str, Any]:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": sessions.first.name, "version": sessions.first.version},
    }


def _tools(sessions: Sessions) -> list[dict[str, Any]]:
    return [
        {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters}
        for environment in sessions.all
        for tool in environment.tools.values()
    ]


async def _called(sessions: Sessions, session: str, params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params.get("name"), params.get("arguments") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise RpcError(INVALID_PARAMS, "tools/call: name must be a text, and arguments an object")
    try:
        return await sessions.runner(session).call_tool(name, arguments)
    except TaskMistake as error:
        raise RpcError(INVALID_REQUEST, str(error)) from None
