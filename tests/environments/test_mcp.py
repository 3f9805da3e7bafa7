"""Tools of MCP servers, made with the official package, reached through the tunnels of a control server."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
import uvicorn
from mcp.server.fastmcp import Context, FastMCP, Image

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.protocol import Transcript
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.served import Served
from hud_orchestrator.errors import EnvironmentFailed, ToolsLost
from hud_orchestrator.records import Task
from tests.environments.scripted_server import HELLO, PLAIN, Connection, error, result, served
from tests.environments.test_tools import Script

TASK = Task(env="e", id="t", args={}, slug="t")
TRACE = "ab" * 16


class Kitchen:
    """An MCP server, and what it noticed."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.seen: list[Any] = []
        self.mcp = FastMCP("kitchen")
        self.mcp.tool()(self.cook)
        self.mcp.tool(structured_output=False)(self.look)
        self.mcp.tool()(self.wait)
        self.mcp.tool()(self.burn)

    async def cook(self, what: str, context: Context) -> dict[str, str]:  # type: ignore[type-arg]
        """Cook something."""
        meta = context.request_context.meta
        request = context.request_context.request
        assert meta is not None
        assert request is not None
        self.seen.append(((meta.model_extra or {}).get("hud/trace-id"), request.headers.get("authorization")))
        return {"cooked": what}

    async def look(self) -> list[Any]:
        return ["a pot", Image(data=b"png", format="png")]

    async def wait(self) -> str:
        self.called.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def burn(self) -> str:
        raise RuntimeError("smoke")


@asynccontextmanager
async def kitchen(transport: str) -> AsyncIterator[tuple[Kitchen, int]]:
    made = Kitchen()
    app = made.mcp.sse_app() if transport == "sse" else made.mcp.streamable_http_app()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            yield made, listener.getsockname()[1]
            server.should_exit = True


class Gate:
    """A control server before MCP servers, which can be made to go away."""

    def __init__(self, **ports: int) -> None:
        self._ports = ports
        self._cuts: set[anyio.CancelScope] = set()
        self.open = True

    def bindings(self, transport: str) -> list[dict[str, Any]]:
        path = "sse" if transport == "sse" else "mcp"
        params = {"transport": transport, "auth_token": "sesame"}
        return [
            {"name": n, "protocol": "mcp/2025-11-25", "url": f"http://127.0.0.1:{p}/{path}", "params": params}
            for n, p in self._ports.items()
        ]

    def close(self) -> None:
        """Break every tunnel, and refuse new ones."""
        self.open = False
        for scope in self._cuts:
            scope.cancel()

    async def __call__(self, connection: Connection) -> None:
        frame = await connection.frame()
        if frame["method"] != "tunnel.open":
            while True:
                await connection.answer(frame)
                frame = await connection.frame()
        if not self.open:
            await connection.send(error(frame["id"], -32000, "connection refused"))
            return
        name = frame["params"]["capability"]
        with anyio.CancelScope() as scope:
            self._cuts.add(scope)
            async with await anyio.connect_tcp("127.0.0.1", self._ports[name]) as backend:
                await connection.send(result(frame, {"capability": name}))
                await splice(connection.stream, backend)


async def splice(one: anyio.abc.ByteStream, other: anyio.abc.ByteStream) -> None:
    async def pump(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
        with_end = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
        try:
            while True:
                await sink.send(await source.receive())
        except with_end:
            both.cancel_scope.cancel()

    async with anyio.create_task_group() as both:
        both.start_soon(pump, one, other)
        both.start_soon(pump, other, one)


@asynccontextmanager
async def world(transport: str, *names: str) -> AsyncIterator[tuple[Served, Kitchen, Gate]]:
    async with kitchen(transport) as (made, port):
        gate = Gate(**dict.fromkeys(names or ("kitchen",), port))
        hello = {**HELLO, "bindings": gate.bindings(transport)}

        async def script(connection: Connection) -> None:
            connection.answers = {**PLAIN, "hello": hello}
            await gate(connection)

        async with served(script) as (control, _):
            yield Served("127.0.0.1", control, pace=Pace(ready_s=5, teardown_s=2)), made, gate


TRANSPORTS = pytest.mark.parametrize("transport", ["streamable-http", "sse"])


@TRANSPORTS
async def test_tools_are_listed_and_called_with_the_token_and_the_trace(transport: str) -> None:
    with anyio.fail_after(20):
        async with world(transport) as (place, made, _), place.episode(TASK, trace_id=TRACE) as episode:
            tools = {tool.name: tool for tool in episode.tools}
            assert set(tools) == {"cook", "look", "wait", "burn"}
            assert tools["cook"].description == "Cook something."
            assert tools["cook"].parameters["required"] == ["what"]

            cooked = await episode.call_tool("cook", {"what": "rice"})
            looked = await episode.call_tool("look", {})
            burnt = await episode.call_tool("burn", {})
            assert (await episode.grade("x"))["score"] == 0.5

    assert json.loads(cooked.content[0]["text"]) == {"cooked": "rice"}
    assert made.seen == [(TRACE, "Bearer sesame")]
    assert looked.content == [
        {"type": "text", "text": "a pot"},
        {"type": "image", "data": "cG5n", "mimeType": "image/png"},
    ]
    assert (burnt.is_error, "smoke" in burnt.content[0]["text"]) == (True, True)


@TRANSPORTS
async def test_a_server_that_goes_away_between_calls_loses_the_tools(transport: str) -> None:
    with anyio.fail_after(20):
        async with world(transport) as (place, _, gate), place.episode(TASK) as episode:
            await episode.call_tool("look", {})
            gate.close()
            for _ in range(2):
                with pytest.raises(ToolsLost, match="kitchen: look: "):
                    await episode.call_tool("look", {})
            assert (await episode.grade("x"))["score"] == 0.5


@TRANSPORTS
async def test_a_server_that_goes_away_during_a_call_loses_the_tools(transport: str) -> None:
    with anyio.fail_after(20):
        async with world(transport) as (place, made, gate), place.episode(TASK) as episode:
            async with anyio.create_task_group() as group:

                async def cut() -> None:
                    await made.called.wait()
                    gate.close()

                group.start_soon(cut)
                with pytest.raises(ToolsLost, match="kitchen: wait: "):
                    await episode.call_tool("wait", {})
            assert (await episode.grade("x"))["score"] == 0.5


@TRANSPORTS
async def test_a_tool_that_never_answers_is_told_to_the_model_and_the_others_go_on(transport: str) -> None:
    script = Script([("wait", "{}")], [("cook", '{"what": "rice"}')], "done")
    agent = ChatAgent(system_prompt=None, max_turns=5, tool_timeout_s=2)
    transcript = Transcript()
    with anyio.fail_after(20):
        async with world(transport) as (place, _, _), place.episode(TASK, trace_id=TRACE) as episode:
            await agent.act(episode, script, transcript)
            assert transcript.answer == "done"
            assert (await episode.grade("x"))["score"] == 0.5
    assert script.asked[1][-1]["content"] == "wait did not answer in 2 s"
    assert "rice" in script.asked[2][-1]["content"]


@TRANSPORTS
async def test_an_episode_that_is_cut_off_inside_a_tool_leaves_nothing_behind(transport: str) -> None:
    with anyio.fail_after(20):
        async with world(transport) as (place, _, _):
            with anyio.move_on_after(0.5) as patience:
                async with place.episode(TASK) as episode:
                    await episode.call_tool("wait", {})
            assert patience.cancelled_caught


async def test_tools_of_several_servers_are_told_apart_by_their_servers() -> None:
    with anyio.fail_after(20):
        async with (
            world("streamable-http", "left", "right") as (place, _, _),
            place.episode(TASK) as episode,
        ):
            assert {tool.name for tool in episode.tools} >= {"left__look", "right__look"}
            assert (await episode.call_tool("right__look", {})).content[0]["text"] == "a pot"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "http://127.0.0.1:1/nowhere"}, "kitchen: http://127.0.0.1:1/nowhere: Session terminated"),
        ({"params": {"transport": "websocket"}}, "transport 'websocket' is not spoken here"),
    ],
)
async def test_a_server_that_cannot_be_spoken_to_is_said_at_the_start(
    change: dict[str, Any], words: str
) -> None:
    async with kitchen("streamable-http") as (_, port):
        gate = Gate(kitchen=port)
        hello = {**HELLO, "bindings": [{**gate.bindings("streamable-http")[0], **change}]}

        async def script(connection: Connection) -> None:
            connection.answers = {**PLAIN, "hello": hello}
            await gate(connection)

        async with served(script) as (control, heard):
            place = Served("127.0.0.1", control, pace=Pace(ready_s=5))
            with anyio.fail_after(20), pytest.raises(EnvironmentFailed, match=words):
                async with place.episode(TASK):
                    pass
    assert "tasks.cancel" in [frame["method"] for frame in heard]


async def test_a_start_frame_refines_what_the_manifest_says() -> None:
    async with kitchen("streamable-http") as (made, port):
        gate = Gate(kitchen=port)
        hello = {**HELLO, "bindings": gate.bindings("streamable-http")}
        start = {"prompt": "x", "bindings": {"kitchen": {"auth_token": "mine alone"}, "other": {}}}

        async def script(connection: Connection) -> None:
            connection.answers = {**PLAIN, "hello": hello, "tasks.start": start}
            await gate(connection)

        async with served(script) as (control, _):
            place = Served("127.0.0.1", control, pace=Pace(ready_s=5))
            with anyio.fail_after(20):
                async with place.episode(TASK, trace_id=TRACE) as episode:
                    await episode.call_tool("cook", {"what": "rice"})
    assert made.seen == [(TRACE, "Bearer mine alone")]
