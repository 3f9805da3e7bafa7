"""The tools of an episode that servers beside the control connection offer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import anyio
import anyio.abc

from hud_orchestrator.environments.bindings import Binding
from hud_orchestrator.toolbox import ToolResult, ToolSpec

OpenTunnel = Callable[[str], Awaitable[anyio.abc.ByteStream]]
"""Opens a byte stream to the capability of that name, or raises ``ToolsLost``."""


class ToolServer(Protocol):
    """One server."""

    name: str
    tools: Sequence[ToolSpec]

    async def call(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Call one of :attr:`tools`."""
        ...

    async def leave(self) -> None:
        """Take leave of the server; returns when nothing is left of the connection."""
        ...


class ToolServers:
    """Every server of an episode behind one list of tools.

    The tools of several servers are called ``server__tool``, as the SDK calls them.
    """

    def __init__(self, servers: Sequence[ToolServer]) -> None:
        self._servers = servers
        self._routes = {
            f"{server.name}__{tool.name}" if len(servers) > 1 else tool.name: (server, tool)
            for server in servers
            for tool in server.tools
        }
        self.tools = tuple(replace(tool, name=name) for name, (_, tool) in self._routes.items())

    def have(self, name: str) -> bool:
        """Whether one of them has this tool."""
        return name in self._routes

    async def call(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Call a tool.

        Raises:
            ToolsLost: its server went away.
        """
        server, tool = self._routes[name]
        return await server.call(tool.name, arguments)

    async def leave(self) -> None:
        """Take leave of all of them at once."""
        async with anyio.create_task_group() as together:
            for server in self._servers:
                together.start_soon(server.leave)


async def open_tools(
    bindings: Sequence[Binding], group: anyio.abc.TaskGroup, tunnel: OpenTunnel, *, trace_id: str | None
) -> ToolServers | None:
    """Connect to every MCP server among *bindings*; ``None`` when there is none.

    The connections live in *group* until :meth:`ToolServers.leave`, or until it is cancelled.

    Raises:
        ToolsLost: one of them cannot be reached, or does not speak MCP.
    """
    spoken = [binding for binding in bindings if binding.protocol.partition("/")[0] == "mcp"]
    if not spoken:
        return None
    # Half a second that runs without such tools do not pay.
    from hud_orchestrator.environments.mcp_client import McpServer

    servers = [McpServer(binding, tunnel, trace_id=trace_id) for binding in spoken]
    for server in servers:
        await group.start(server.run)
    return ToolServers(servers)
