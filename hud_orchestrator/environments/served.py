"""Episodes of an environment that is served at an address, by whomever."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from hud_orchestrator.environments.bindings import refined
from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.crew import crew
from hud_orchestrator.environments.link import Dial, Link, Pace
from hud_orchestrator.environments.toolservers import ToolServers, open_tools
from hud_orchestrator.errors import EnvironmentLost
from hud_orchestrator.records import Task


class Served:
    """Runs episodes on one served environment, a connection for each."""

    def __init__(self, host: str, port: int, *, pace: Pace) -> None:
        self._dial = tcp_dial(host, port)
        self._named = f"tcp://{host}:{port}"
        self._pace = pace

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task*; leaving closes the connection, and the environment drops what was not graded."""
        async with served_episode(
            self._dial, task, named=self._named, pace=self._pace, trace_id=trace_id
        ) as episode:
            yield episode


def tcp_dial(host: str, port: int) -> Dial:
    """Connect to a control port."""

    async def dial() -> anyio.abc.ByteStream:
        return await anyio.connect_tcp(host, port)

    return dial


@asynccontextmanager
async def served_episode(
    dial: Dial, task: Task, *, named: str, pace: Pace, trace_id: str | None
) -> AsyncGenerator[ControlEpisode, None]:
    """One episode of *task* at the control port that *dial* connects to.

    Raises:
        EnvironmentFailed: it did not start, or broke off meanwhile.
    """
    link = Link(dial, named=named, pace=pace)
    try:
        await link.open()
        start = await link.call("tasks.start", id=task.id, args=dict(task.args))
        bindings = refined(link.manifest.bindings, start.get("bindings"))
        ours = "tools.call" in link.manifest.methods
        if ours:
            bindings = ()  # what is published there for others is in the start frame already
        else:
            start = {**start, "tools": None}  # a template of the SDK may yield anything beside its prompt
        async with _alive(link) as group:
            servers = await open_tools(bindings, group, link.tunnel, trace_id=trace_id)
            try:
                yield ControlEpisode(
                    link.call,
                    start,
                    conversational=ours,
                    servers=servers,
                )
            finally:
                await _leave(servers, within_s=pace.teardown_s)
    finally:
        with anyio.CancelScope(shield=True):  # bounded by teardown_s inside
            await link.aclose()


async def _leave(servers: ToolServers | None, *, within_s: float) -> None:
    if servers is not None:
        with anyio.move_on_after(within_s, shield=True):
            await servers.leave()


@asynccontextmanager
async def _alive(link: Link) -> AsyncGenerator[anyio.abc.TaskGroup, None]:
    """Tasks beside the block, which is cut off when the link is lost."""
    lost: list[EnvironmentLost] = []

    async def watch(group: anyio.abc.TaskGroup) -> None:
        try:
            await link.keep_alive()
        except EnvironmentLost as error:
            lost.append(error)
            group.cancel_scope.cancel()

    async with crew() as group:
        group.start_soon(watch, group)
        yield group
    if lost:
        raise lost[0]
