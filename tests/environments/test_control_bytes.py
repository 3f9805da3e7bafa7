"""Whatever bytes an environment sends, the daemon calls it a failure of the environment, and goes on."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import pytest

from hud_orchestrator.environments.control import ControlEpisode, ControlSession
from hud_orchestrator.environments.grades import NotAGrade, check_grade
from hud_orchestrator.environments.lines import StreamLines
from hud_orchestrator.errors import EnvironmentFailed

TOOLS = [{"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}}]
REPLIES: tuple[Any, ...] = (
    {"jsonrpc": "2.0", "id": 1, "result": {"prompt": [{"role": "user", "content": "x"}], "tools": TOOLS}},
    {"jsonrpc": "2.0", "id": 2, "result": {"content": [{"type": "text", "text": "y"}], "isError": False}},
    {"jsonrpc": "2.0", "id": 3, "result": {"prompt": "and now?"}},
    {"jsonrpc": "2.0", "id": 4, "result": {"score": 0.5, "subscores": [{"name": "s", "value": 0.5}]}},
)
ODD = (None, True, 7, -1, 10**400, 0.5, "", "\ud800", "x" * 100, [], [[]], {}, {"a": None}, "NaN", [None])
RAW = (b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"\xff", b"[" * 5000, b"", b"{", b"\0", b"9" * 5000)


def changed(value: Any, rng: random.Random) -> Any:
    """*value* with one thing in it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


def line(reply: Any, rng: random.Random) -> bytes:
    """A reply as an environment may send it."""
    if rng.random() < 0.5:
        return json.dumps(reply).encode() + b"\n"
    text = json.dumps(changed(reply, rng)).encode()
    if rng.random() < 0.4:
        start = rng.randrange(len(text))
        text = text[:start] + rng.choice(RAW) + text[start + rng.randrange(8) :]
    return text + b"\n" * (rng.random() < 0.95)


async def episode(replies: bytes) -> Mapping[str, Any]:
    """All that an episode does, and what of it goes on to the gateway and the store."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        theirs.sendall(replies)
        theirs.shutdown(socket.SHUT_WR)
        async with await anyio.abc.SocketStream.from_socket(ours) as stream:
            session = ControlSession(StreamLines(stream))
            one = ControlEpisode(session.call, await session.call("tasks.start", id="t", args={}))
            result = await one.call_tool("t", {})
            further = await one.turn("answer")
            grade = await one.grade("answer")
            return {
                "messages": [*one.prompt, *(further or [])],
                "tools": [[tool.name, tool.description, dict(tool.parameters)] for tool in one.tools],
                "result": [part.get("text") for part in result.content],
                "grade": dict(grade),
                "reward": check_grade(grade),
            }


@pytest.mark.parametrize("seed", range(4))
async def test_no_bytes_of_an_environment_are_an_error_of_ours(seed: int) -> None:
    rng = random.Random(seed)
    whole = 0
    with anyio.fail_after(60):
        for _ in range(250):
            with suppress(EnvironmentFailed, NotAGrade):
                done = await episode(b"".join(line(reply, rng) for reply in REPLIES))
                # As strict as the gateway's client is.
                json.dumps(done, allow_nan=False, ensure_ascii=False).encode()
                whole += 1
    assert 0 < whole < 250


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "-Infinity"])
async def test_a_number_that_no_float_holds_goes_on_as_text_for_json_has_no_word_for_it(number: str) -> None:
    *replies, _ = (json.dumps(reply) for reply in REPLIES)
    grade = f'{{"jsonrpc":"2.0","id":4,"result":{{"score":0.5,"info":{{"all":[1.5,{number}]}}}}}}'

    with anyio.fail_after(10):
        done = await episode("\n".join((*replies, grade, "")).encode())

    assert done["grade"]["info"] == {"all": [1.5, number]}
    assert json.loads(json.dumps(done, allow_nan=False)) == done
