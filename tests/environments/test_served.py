"""The client's side of the control protocol, against servers of both generations and broken ones."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hud_orchestrator.environments.grades import NotAGrade, check_grade
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.served import Served
from hud_orchestrator.errors import EnvironmentClosed, EnvironmentFailed, EnvironmentLost
from hud_orchestrator.records import Task
from tests.environments.scripted_server import PLAIN, Connection, error, obliging, result, served

TASK = Task(env="e", id="t", args={"n": 1}, slug="t")


def at(port: int, **pace: float) -> Served:
    return Served("127.0.0.1", port, pace=Pace(**{"ready_s": 5, "teardown_s": 0.2, **pace}))


async def test_an_episode_is_a_hello_a_start_and_a_grade() -> None:
    async with served(obliging) as (port, heard):
        with anyio.fail_after(5):
            async with at(port).episode(TASK) as episode:
                assert episode.prompt == [{"role": "user", "content": "say"}]
                assert not episode.conversational
                assert await episode.grade("x") == {"score": 0.5}

    assert heard == [
        {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {}},
        {"jsonrpc": "2.0", "id": 2, "method": "tasks.start", "params": {"id": "t", "args": {"n": 1}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tasks.grade", "params": {"answer": "x"}},
    ]


async def test_what_is_not_there_yet_is_waited_for() -> None:
    async def not_ready(connection: Connection) -> None:
        await connection.frame()

    async with served(not_ready, obliging) as (port, _):
        with anyio.fail_after(5):
            async with at(port).episode(TASK) as episode:
                assert (await episode.grade(None))["score"] == 0.5


async def test_what_never_comes_is_given_up_by_the_ready_timeout() -> None:
    async with served(obliging) as (port, _):
        pass
    with anyio.fail_after(5), pytest.raises(EnvironmentFailed, match=r"no environment answered in 0\.3 s"):
        async with at(port, ready_s=0.3).episode(TASK):
            pass


async def test_an_error_in_answer_to_hello_is_final() -> None:
    async def refuse(connection: Connection) -> None:
        await connection.send(error((await connection.frame())["id"], -32000, "no such tenant"))

    async with served(refuse) as (port, heard):
        with anyio.fail_after(5), pytest.raises(EnvironmentFailed, match="no such tenant"):
            async with at(port).episode(TASK):
                pass
    assert len(heard) == 1


def answering(method: str, line: bytes | None) -> Any:
    """Oblige until *method*, then send these bytes and close."""

    async def script(connection: Connection) -> None:
        while (frame := await connection.frame())["method"] != method:
            await connection.answer(frame)
        if line is not None:
            await connection.send(line)

    return script


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (None, EnvironmentClosed, "closed its connection"),
        (b'{"jsonrpc":"2.0","id":2,"resu', EnvironmentClosed, "closed its connection"),
        (b"half\n", EnvironmentLost, "not JSON"),
        (b"[]\n", EnvironmentLost, "answered list"),
        (b'{"jsonrpc":"2.0","id":99,"result":{}}\n', EnvironmentLost, "answered request 99"),
        (b'{"jsonrpc":"2.0","id":2,"result":3}\n', EnvironmentLost, "expected an object"),
        (b"x" * (17 * 2**20), EnvironmentLost, "above 16 MiB"),
        (error(None, -32000, "frame too large"), EnvironmentFailed, "frame too large"),
        (error(2, -32602, "unknown task: 't'"), EnvironmentFailed, "unknown task: 't'"),
        (
            result({"id": 2}, {"prompt": "x", "bindings": ["tools"]}),
            EnvironmentFailed,
            "bindings is .*expected names and objects",
        ),
    ],
)
async def test_a_start_that_goes_wrong_says_how(
    line: bytes | None, kind: type[EnvironmentFailed], words: str
) -> None:
    async with served(answering("tasks.start", line)) as (port, _):
        with anyio.fail_after(10), pytest.raises(EnvironmentFailed, match=words) as caught:
            async with at(port).episode(TASK):
                pass
    assert type(caught.value) is kind


async def test_a_request_that_no_server_reads_is_not_sent() -> None:
    task = Task(env="e", id="t", args={"text": "x" * (16 * 2**20)}, slug="t")
    async with served(obliging) as (port, heard):
        with anyio.fail_after(10), pytest.raises(EnvironmentFailed, match="a frame at most 16 MiB"):
            async with at(port).episode(task):
                pass
    assert [frame["method"] for frame in heard] == ["hello", "tasks.cancel"]


async def test_an_old_server_that_resets_on_a_large_frame_is_recognised() -> None:
    async def old(connection: Connection) -> None:
        await connection.answer(await connection.frame())
        await connection.receive_at_most(2**16)

    task = Task(env="e", id="t", args={"text": "x" * 2**20}, slug="t")
    async with served(old) as (port, _):
        with anyio.fail_after(5), pytest.raises(EnvironmentClosed, match="64 KiB, and this one had 10"):
            async with at(port).episode(task):
                pass


@pytest.mark.parametrize("score", [b"NaN", b"Infinity", b"true", b'"1"', b"null"])
async def test_a_score_that_is_no_finite_number_is_no_grade(score: bytes) -> None:
    async def odd(connection: Connection) -> None:
        while (frame := await connection.frame())["method"] != "tasks.grade":
            await connection.answer(frame)
        await connection.send(b'{"jsonrpc":"2.0","id":3,"result":{"score":%s}}\n' % score)

    async with served(odd) as (port, _):
        with anyio.fail_after(5), pytest.raises(NotAGrade, match="expected a finite number"):
            async with at(port).episode(TASK) as episode:
                check_grade(await episode.grade(None))


async def test_a_grade_that_is_cut_off_is_interrupted_by_a_cancel() -> None:
    async def interrupted(connection: Connection) -> None:
        while (frame := await connection.frame())["method"] != "tasks.grade":
            await connection.answer(frame)
        await connection.frame()
        await connection.send(error(frame["id"], -32000, "tasks.cancel interrupted the task"))
        await connection.send(result({"id": 4}, {"cancelled": True}))

    async with served(interrupted) as (port, heard):
        with anyio.fail_after(5), anyio.move_on_after(0.2) as patience:
            async with at(port, teardown_s=60).episode(TASK) as episode:
                await episode.grade(None)
    assert patience.cancelled_caught
    assert heard[-1]["method"] == "tasks.cancel"


async def test_a_serial_server_that_hears_no_cancel_costs_the_teardown_and_no_more() -> None:
    async def serial(connection: Connection) -> None:
        while (frame := await connection.frame())["method"] != "tasks.grade":
            await connection.answer(frame)
        await anyio.sleep_forever()

    async with served(serial) as (port, _):
        with anyio.fail_after(5), anyio.move_on_after(0.1) as patience:
            async with at(port).episode(TASK) as episode:
                await episode.grade(None)
    assert patience.cancelled_caught


async def test_a_task_is_graded_over_a_new_connection_when_the_old_one_broke() -> None:
    async def breaks(connection: Connection) -> None:
        for _ in range(2):
            await connection.answer(await connection.frame())

    async with served(breaks, obliging) as (port, heard):
        with anyio.fail_after(5):
            async with at(port).episode(TASK) as episode:
                assert (await episode.grade("x"))["score"] == 0.5
    assert [(frame["method"], frame["params"]) for frame in heard[2:]] == [
        ("hello", {"session_id": "sess-1"}),
        ("tasks.grade", {"answer": "x"}),
    ]


async def test_a_session_that_is_still_taken_for_live_is_asked_for_again() -> None:
    async def breaks(connection: Connection) -> None:
        for _ in range(2):
            await connection.answer(await connection.frame())

    async def slow_to_notice(connection: Connection) -> None:
        told = "session 'sess-1' has a live connection"
        await connection.send(error((await connection.frame())["id"], -32600, told))

    async with served(breaks, slow_to_notice, obliging) as (port, _):
        with anyio.fail_after(5):
            async with at(port).episode(TASK) as episode:
                assert (await episode.grade("x"))["score"] == 0.5


async def test_what_a_template_yields_beside_its_prompt_is_not_taken_for_tools() -> None:
    async def odd(connection: Connection) -> None:
        connection.answers = {**PLAIN, "tasks.start": {"prompt": "say", "tools": ["hammer"]}}
        await obliging(connection)

    async with served(odd) as (port, _):
        with anyio.fail_after(5):
            async with at(port).episode(TASK) as episode:
                assert episode.tools == ()
                assert not episode.conversational


async def test_signs_of_life_are_sent_while_nothing_else_travels() -> None:
    beaten = anyio.Event()

    async def counting(connection: Connection) -> None:
        while True:
            frame = await connection.frame()
            await connection.answer(frame)
            if frame["params"] == {"session_id": "sess-1"}:
                beaten.set()

    async with served(counting) as (port, _):
        with anyio.fail_after(5):
            async with at(port, heartbeat_s=0.01).episode(TASK) as episode:
                await beaten.wait()
                assert (await episode.grade("x"))["score"] == 0.5


async def test_an_agent_whose_environment_is_gone_for_good_is_cut_off() -> None:
    async def gone(connection: Connection) -> None:
        for _ in range(2):
            await connection.answer(await connection.frame())

    async def forgetful(connection: Connection) -> None:
        await connection.send(error((await connection.frame())["id"], -32600, "unknown session"))

    async with served(gone, forgetful) as (port, _):
        with anyio.fail_after(5), pytest.raises(EnvironmentLost, match="unknown session"):
            async with at(port, heartbeat_s=0.01).episode(TASK):
                await anyio.sleep_forever()


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    async with served(obliging) as (port, heard):
        with anyio.fail_after(5), pytest.raises(KeyError):
            async with at(port).episode(TASK):
                raise KeyError
    assert heard[-1]["method"] == "tasks.cancel"
