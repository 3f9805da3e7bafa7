"""Tools of an MCP server, through the official package and a tunnel."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from mcp import ClientSession, McpError, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from hud_orchestrator.environments.bindings import Binding
from hud_orchestrator.environments.toolservers import OpenTunnel
from hud_orchestrator.environments.tunnel_http import tunnel_client
from hud_orchestrator.errors import ToolsLost, leaves
from hud_orchestrator.toolbox import ToolResult, ToolSpec

GOODBYE_S = 2
"""Seconds that a server gets to hear that its session is over."""

GONE = frozenset({types.CONNECTION_CLOSED, 32600})
"""Error codes that the package makes up when the server has gone, or knows the session no more."""

# What it logs reaches us as an error, or does not matter; it must not write on the terminal.
logging.getLogger("mcp").addHandler(logging.NullHandler())


class McpServer:
    """One server: a task that holds the connection, and calls from any other task.

    The package's contexts are entered and left in the one task of :meth:`run`, as its task groups want.
    A failure inside them ends that task alone, and whoever waits for an answer hears ``ToolsLost``.
    """

    def __init__(self, binding: Binding, tunnel: OpenTunnel, *, trace_id: str | None) -> None:
        self.name = binding.name
        self.tools: Sequence[ToolSpec] = ()
        self._binding = binding
        self._tunnel = tunnel
        self._meta = {"hud/trace-id": trace_id} if trace_id else None
        self._session: ClientSession | None = None
        self._waiting: set[anyio.CancelScope] = set()
        self._lost: str | None = None
        self._leaving = anyio.Event()
        self._left = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Hold the connection until :meth:`leave`; started when the tools are known.

        Raises:
            ToolsLost: before it started, the server could not be reached.
        """
        started = False
        try:
            with anyio.CancelScope() as scope:
                async with self._connected() as session:
                    await session.initialize()
                    self.tools = await _tools(session)
                    self._session = session
                    started = True
                    task_status.started()
                    await self._leaving.wait()
                    scope.deadline = anyio.current_time() + GOODBYE_S
        except Exception as error:
            self._lose(_reason(error))
            if not started:
                raise ToolsLost(f"{self.name}: {self._binding.url}: {self._lost}") from error
        finally:
            self._lose("the connection is closed")
            self._left.set()

    async def call(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Call a tool; an error that the server answers with is for the agent to read.

        Raises:
            ToolsLost: the server went away.
        """
        if self._lost is None:
            assert self._session is not None  # run() has started, or there were no tools
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    return await self._answer(self._session, name, arguments)
                finally:
                    self._waiting.discard(scope)
        raise ToolsLost(f"{self.name}: {name}: {self._lost}")

    async def leave(self) -> None:
        """End the session; returns when nothing is left of it."""
        self._leaving.set()
        await self._left.wait()

    async def _answer(self, session: ClientSession, name: str, arguments: Mapping[str, object]) -> ToolResult:
        try:
            return as_tool_result(await session.call_tool(name, dict(arguments), meta=self._meta))
        except McpError as error:
            if error.error.code not in GONE:
                return ToolResult.error(error.error.message)
            self._lose(error.error.message)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._lose("the connection is closed")
        except RuntimeError as error:  # its structured content is not what the tool promised
            return ToolResult.error(str(error))
        raise ToolsLost(f"{self.name}: {name}: {self._lost}")

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        for scope in self._waiting:
            scope.cancel()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[ClientSession, None]:
        async with self._streams() as streams, ClientSession(streams[0], streams[1]) as session:
            yield session

    def _streams(self) -> AbstractAsyncContextManager[tuple[Any, ...]]:
        transport = self._binding.params.get("transport") or "streamable-http"
        if transport == "sse":
            make: Any = self._http
            return sse_client(self._binding.url, httpx_client_factory=make)
        if transport == "streamable-http":
            return self._streamable()
        raise ToolsLost(f"transport {transport!r} is not spoken here; streamable-http and sse are")

    @asynccontextmanager
    async def _streamable(self) -> AsyncGenerator[tuple[Any, ...], None]:
        async with (
            self._http() as client,
            streamable_http_client(self._binding.url, http_client=client) as streams,
        ):
            yield streams

    def _http(self, **_: Any) -> Any:
        # The keywords are the package's own headers and timeouts, which are none of ours.
        token = self._binding.params.get("auth_token")
        return tunnel_client(lambda: self._tunnel(self.name), broken=self._broken, token=token)

    def _broken(self, error: Exception) -> None:
        # The package goes on waiting for an answer whose connection broke off.
        self._lose(_reason(error))


async def _tools(session: ClientSession) -> tuple[ToolSpec, ...]:
    found: list[types.Tool] = []
    page: types.ListToolsResult | None = None
    while page is None or page.nextCursor:
        cursor = types.PaginatedRequestParams(cursor=page.nextCursor) if page else None
        page = await session.list_tools(params=cursor)
        found += page.tools
    return tuple(
        ToolSpec(name=tool.name, description=tool.description or "", parameters=tool.inputSchema)
        for tool in found
    )


def as_tool_result(result: types.CallToolResult) -> ToolResult:
    """What a server answered: texts and images as they are, everything else as text."""
    content = [_part(part) for part in result.content]
    if not content and result.structuredContent is not None:
        content = [{"type": "text", "text": json.dumps(result.structuredContent)}]
    return ToolResult(content=content, is_error=bool(result.isError))


def _part(part: types.ContentBlock) -> dict[str, Any]:
    if isinstance(part, types.TextContent):
        return {"type": "text", "text": part.text}
    if isinstance(part, types.ImageContent):
        return {"type": "image", "data": part.data, "mimeType": part.mimeType}
    if isinstance(part, types.EmbeddedResource) and isinstance(part.resource, types.TextResourceContents):
        return {"type": "text", "text": part.resource.text}
    told = part.model_dump(mode="json", exclude_none=True, exclude={"data", "blob", "resource"})
    return {"type": "text", "text": json.dumps(told)}


def _reason(error: BaseException) -> str:
    first = next(leaves(error))
    return str(first) or type(first).__name__
