"""The server's side of the control protocol, frame by frame, and our own client and an MCP client on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream, BufferedByteStream

from hud_orchestrator.environments.link import Link, Pace
from hud_orchestrator.environments.served import Served, tcp_dial
from hud_orchestrator.environments.server import EnvironmentServer, chosen
from hud_orchestrator.environments.toolservers import ToolServers, open_tools
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Task

SOURCE = '''
import asyncio
from hud_orchestrator import Environment

env = Environment("lab", version="3")
started = asyncio.Event()

@env.tool()
async def put(what: str, count: int = 1) -> dict:
    """Put something into the basket."""
    env.state.basket[what] = env.state.basket.get(what, 0) + count
    return env.state.basket

@env.tool()
async def picture() -> list:
    return [{"type": "text", "text": "look"}, {"type": "image", "data": "AAAA", "mimeType": "image/png"}]

@env.tool()
async def sleep() -> str:
    await asyncio.sleep(10**6)

@env.template(description="Buy things.")
async def shop(wanted: str, count: int = 1):
    env.state.basket = {}
    answer = yield f"buy {wanted}"
    yield {"score": float(env.state.basket.get(wanted, 0) == count), "said": answer}

@env.template()
async def turns():
    said = []
    for question in ("one", "two"):
        said.append((yield question))
    yield {"score": 1.0, "said": said}

@env.template()
async def slow(start: float = 0.0, grade: float = 0.0):
    started.set()
    await asyncio.sleep(start)
    yield "x"
    started.set()
    await asyncio.sleep(grade)
    yield 1.0

@env.template()
async def large():
    yield "x" * (17 * 2**20)
    yield 1.0

@env.template()
async def infinite():
    yield "x"
    yield float("inf")
'''


class Client:
    """A connection, in frames."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = BufferedByteStream(stream)
        self._number = 0

    async def ask(self, method: str, **params: Any) -> Any:
        """The result, or the error's code and message."""
        number = await self.send(method, **params)
        answer = await self.read()
        assert answer["id"] == number
        return answer.get("result") or (answer["error"]["code"], answer["error"]["message"])

    async def send(self, method: str, **params: Any) -> int:
        self._number += 1
        frame = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        await self.stream.send(json.dumps(frame).encode() + b"\n")
        return self._number

    async def read(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self.stream.receive_until(b"\n", 2**25))
        return frame


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    source = tmp_path / "lab.py"
    source.write_text(SOURCE)
    async with EnvironmentServer(chosen(source, None)) as server:
        yield server.port


Connect = Callable[[], Awaitable[Client]]


@pytest.fixture
async def client(port: int) -> AsyncIterator[Connect]:
    """Connects."""
    opened: list[Client] = []

    async def connect() -> Client:
        opened.append(Client(await anyio.connect_tcp("127.0.0.1", port)))
        return opened[-1]

    yield connect
    for one in opened:
        await anyio.aclose_forcefully(one.stream)


async def test_hello_is_the_manifest_and_tasks_come_with_schemas(client: Connect) -> None:
    one = await client()
    hello = await one.ask("hello")
    tasks = {task["id"]: task for task in (await one.ask("tasks.list"))["tasks"]}

    assert hello["session_id"].startswith("sess-")
    assert hello["env"] == {"name": "lab", "version": "3"}
    (binding,) = hello["bindings"]
    assert (binding["name"], binding["protocol"]) == ("tools", "mcp/2025-11-25")
    assert binding["params"] == {"transport": "streamable-http"}
    assert tasks["shop"] == {
        "id": "shop",
        "description": "Buy things.",
        "args": {
            "type": "object",
            "properties": {"wanted": {"type": "string"}, "count": {"type": "integer", "default": 1}},
            "required": ["wanted"],
            "additionalProperties": False,
        },
    }


async def test_a_client_that_knows_start_and_grade_alone_gets_one_answer_across(client: Connect) -> None:
    one = await client()
    assert (await one.ask("tasks.start", id="turns"))["prompt"] == "one"
    assert await one.ask("tasks.grade", answer="yes") == {"score": 1.0, "said": ["yes", None]}
    assert await one.ask("tasks.grade", answer="yes") == (-32600, "no task in progress")
    assert await one.ask("bye") == {"goodbye": True}
    with pytest.raises(anyio.IncompleteRead):
        await one.read()


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("tasks.start", {"id": 3}, -32602, "id must be a text"),
        ("tasks.start", {"id": "shop", "args": []}, -32602, "args must be an object"),
        ("tasks.start", {"id": "steal"}, -32602, "no template 'steal'"),
        ("tasks.start", {"id": "shop", "args": {"wanted": "tea", "colour": 1}}, -32000, "colour"),
        ("tasks.start", {"id": "large"}, -32000, "a frame at most"),
        ("tasks.grade", {"answer": 1}, -32600, "no task in progress"),
        ("tasks.dance", {}, -32601, "method not found: tasks.dance"),
        ("hello", {"session_id": 7}, -32602, "session_id must be a text"),
        ("hello", {"session_id": "sess-0"}, -32600, "unknown session"),
        ("tunnel.open", {"capability": "tools"}, -32601, "method not found"),
    ],
)
async def test_errors_have_the_codes_of_the_contract(
    client: Connect, method: str, params: dict[str, Any], code: int, words: str
) -> None:
    one = await client()
    await one.ask("hello")
    told, message = await one.ask(method, **params)
    assert (told, words in message) == (code, True)
    assert "prompt" in await one.ask("tasks.start", id="shop", args={"wanted": "tea"})


async def test_a_score_that_is_no_number_is_an_error(client: Connect) -> None:
    one = await client()
    await one.ask("tasks.start", id="infinite")
    assert (await one.ask("tasks.grade", answer=None))[0] == -32000


async def test_a_cancel_interrupts_a_call_and_answers_for_both(client: Connect) -> None:
    one = await client()
    number = await one.send("tasks.start", id="slow", args={"start": 1e6})
    assert await one.send("hello") == number + 1
    refused = await one.read()
    assert (refused["id"], refused["error"]["code"]) == (number + 1, -32600)
    await one.send("tasks.cancel")
    interrupted, cancelled = await one.read(), await one.read()

    assert (interrupted["id"], interrupted["error"]["code"]) == (number, -32000)
    assert cancelled["result"] == {"cancelled": True}
    assert await one.ask("tasks.cancel") == {"cancelled": True}


async def test_a_task_outlives_its_connection_until_its_session_is_taken_up(client: Connect) -> None:
    first, second = await client(), await client()
    session = (await first.ask("hello"))["session_id"]
    await first.ask("tasks.start", id="shop", args={"wanted": "tea", "count": 0})
    refused = await second.ask("hello", session_id=session)
    assert refused == (-32600, f"session {session!r} has a live connection")

    await first.stream.aclose()
    hello = await until_parked(second, session)
    assert hello["session_id"] == session
    assert hello["bindings"][0]["url"].endswith(f"/{session}/mcp")
    assert (await second.ask("tasks.grade", answer=None))["score"] == 1.0


async def until_parked(one: Client, session: str) -> dict[str, Any]:
    """Say hello for the session, until the server has noticed that its connection is gone."""
    while isinstance(hello := await one.ask("hello", session_id=session), tuple):
        await anyio.lowlevel.checkpoint()
    found: dict[str, Any] = hello
    return found


async def test_the_only_parked_task_is_graded_by_whoever_asks_and_of_two_neither(client: Connect) -> None:
    sessions = []
    for _ in range(2):
        one = await client()
        sessions.append((await one.ask("hello"))["session_id"])
        await one.ask("tasks.start", id="shop", args={"wanted": "tea", "count": 0})
        await one.stream.aclose()
    other = await client()
    await until_parked(await client(), sessions[0])

    # The first is live again, so the second is the only one parked.
    grade = await other.ask("tasks.grade", answer="mine")
    while isinstance(grade, tuple):
        grade = await other.ask("tasks.grade", answer="mine")
    assert grade == {"score": 1.0, "said": "mine"}


async def test_of_two_parked_tasks_neither_is_graded_blindly(client: Connect) -> None:
    for _ in range(2):
        one = await client()
        await one.ask("tasks.start", id="shop", args={"wanted": "tea"})
        await one.stream.aclose()
    blind = await client()
    told = ""
    while "2 parked sessions" not in told:
        code, told = await blind.ask("tasks.grade", answer=None)
        assert code == -32600


async def test_a_start_whose_client_went_away_completes_and_is_parked(client: Connect) -> None:
    one = await client()
    session = (await one.ask("hello"))["session_id"]
    await one.send("tasks.start", id="slow", args={"start": 0.2})
    await one.stream.send_eof()

    again = await client()
    await until_parked(again, session)
    assert await again.ask("tasks.grade", answer=None) == {"score": 1.0}


@pytest.mark.parametrize("line", [b"half", b"what?\n", b"[1]\n", b"\n"])
async def test_what_is_no_frame_closes_the_connection_silently(client: Connect, line: bytes) -> None:
    one = await client()
    await one.stream.send(line)
    await one.stream.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await one.stream.receive()


async def test_a_frame_above_the_limit_is_answered_with_an_error_and_the_end(client: Connect) -> None:
    one = await client()
    await one.ask("hello")

    async with anyio.create_task_group() as sending:

        async def flood() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await one.stream.send(b"x" * 2**26)

        sending.start_soon(flood)
        told = await one.read()
    assert (told["id"], told["error"]["code"]) == (None, -32000)


async def test_a_request_without_a_number_is_done_and_not_answered(client: Connect) -> None:
    one = await client()
    frame = {"jsonrpc": "2.0", "method": "tasks.start", "params": {"id": "turns"}}
    await one.stream.send(json.dumps(frame).encode() + b"\n")
    while (grade := await one.ask("tasks.grade", answer="a")) == (
        -32600,
        "tasks.grade: a task call is still running",
    ):
        pass
    assert grade["said"] == ["a", None]


async def test_a_tunnel_to_what_is_not_there_is_refused(client: Connect) -> None:
    one = await client()
    assert (await one.ask("tunnel.open", capability="shell"))[0] == -32602


SHOP = Task(env="lab", id="shop", args={"wanted": "tea", "count": 2}, slug="tea")


async def test_our_own_client_talks_and_calls_tools_without_mcp(port: int) -> None:
    place = Served("127.0.0.1", port, pace=Pace(ready_s=5))
    async with place.episode(SHOP) as episode, place.episode(SHOP) as other:
        assert {tool.name for tool in episode.tools} == {"put", "picture", "sleep"}
        assert episode.conversational
        await other.call_tool("put", {"what": "tea"})
        result = await episode.call_tool("put", {"what": "tea", "count": 2})
        assert result.content == [{"type": "text", "text": '{"tea": 2}'}]
        assert (await episode.grade("done"))["score"] == 1.0
        assert (await other.grade("done"))["score"] == 0.0


@asynccontextmanager
async def over_mcp(port: int) -> AsyncIterator[tuple[Link, ToolServers]]:
    """An episode whose tools are called as the SDK's agents call them."""
    link = Link(tcp_dial("127.0.0.1", port), named="lab", pace=Pace(ready_s=5))
    await link.open()
    await link.call("tasks.start", id=SHOP.id, args=SHOP.args)
    async with anyio.create_task_group() as group:
        servers = await open_tools(link.manifest.bindings, group, link.tunnel, trace_id="ab" * 16)
        assert servers is not None
        yield link, servers
        await servers.leave()
    await link.aclose()


async def test_tools_over_mcp_belong_to_the_episode_of_their_session(port: int) -> None:
    with anyio.fail_after(10):
        async with over_mcp(port) as (mine, tools), over_mcp(port) as (other, others):
            by_name = {tool.name: tool for tool in tools.tools}
            assert by_name["put"].description == "Put something into the basket."
            assert by_name["put"].parameters["required"] == ["what"]

            await others.call("put", {"what": "tea"})
            bought = await tools.call("put", {"what": "tea", "count": 2})
            looked = await tools.call("picture", {})
            assert json.loads(bought.content[0]["text"]) == {"tea": 2}
            assert [part["type"] for part in looked.content] == ["text", "image"]
            assert looked.content[1] == {"type": "image", "data": "AAAA", "mimeType": "image/png"}
            assert (await mine.call("tasks.grade", answer=None))["score"] == 1.0
            assert (await other.call("tasks.grade", answer=None))["score"] == 0.0


async def test_what_goes_wrong_with_a_tool_over_mcp_is_for_the_agent_to_read(port: int) -> None:
    with anyio.fail_after(10):
        async with over_mcp(port) as (link, tools):
            wrong = await tools.call("put", {"colour": "red"})
            assert (wrong.is_error, "TypeError" in wrong.content[0]["text"]) == (True, True)
            await link.call("tasks.grade", answer=None)
            late = await tools.call("put", {"what": "tea"})
            assert (late.is_error, late.content[0]["text"]) == (True, "no task in progress")


async def test_a_tool_that_is_not_waited_for_is_interrupted_and_the_next_one_answers(port: int) -> None:
    with anyio.fail_after(10):
        async with over_mcp(port) as (link, tools):
            with anyio.move_on_after(0.1):
                await tools.call("sleep", {})
            assert not (await tools.call("put", {"what": "tea", "count": 2})).is_error
            assert (await link.call("tasks.grade", answer=None))["score"] == 1.0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /s/mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nno!", b"400"),
        (b"POST /s/mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]", b"400"),
        (b"POST /s/mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", b"202"),
        (b"GET /s/mcp HTTP/1.1\r\nhost: x\r\n\r\n", b"405"),
        (b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n", b"404"),
    ],
)
async def test_http_that_is_no_call_gets_its_status(client: Connect, request_: bytes, status: bytes) -> None:
    one = await client()
    await one.ask("tunnel.open", capability="tools")
    for _ in range(2):  # and the connection goes on
        await one.stream.send(request_)
        answer = await one.stream.receive_until(b"\r\n\r\n", 2**16)
        assert answer.split()[1] == status
        length = int(answer.lower().partition(b"content-length: ")[2].split()[0])
        await one.stream.receive_exactly(length)


async def test_a_process_tells_its_port_serves_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    source = tmp_path / "lab.py"
    source.write_text("print('hello')\n" + SOURCE)
    command = [sys.executable, "-m", "hud_orchestrator", "env", "serve", str(source), "--port", "0"]
    with anyio.fail_after(30):
        async with await anyio.open_process(command, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 100)
            place = Served("127.0.0.1", int(line.removeprefix(b"HUD_SERVE_PORT=")), pace=Pace(ready_s=5))
            endless = Task(env="lab", id="slow", args={"grade": 1e6}, slug="slow")
            async with place.episode(endless) as episode:
                process.terminate()
                with pytest.raises(EnvironmentFailed):
                    await episode.grade(None)
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        ("other = Environment('other')", [], "choose one with --env"),
        ("", ["--env", "none"], "has no environment 'none'; it has ['lab']"),
        ("1/0", [], "cannot be imported"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    tmp_path: Path, more: str, arguments: list[str], words: str
) -> None:
    source = tmp_path / "lab.py"
    source.write_text(SOURCE + more)
    command = [sys.executable, "-m", "hud_orchestrator", "env", "serve", str(source), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, words in ended.stderr, ended.stdout) == (2, True, "")
