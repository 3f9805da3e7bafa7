"""An environment that misbehaves where and how its task says. It runs in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from hud_orchestrator import Environment

env = Environment("cruel")
tooled = Environment("tooled")


async def hang() -> None:
    """Wait for ever, as a lock that nobody gives back does."""
    await asyncio.sleep(10**6)


async def block() -> None:
    """Hold the whole process."""
    time.sleep(10**6)  # noqa: ASYNC251  (cruel)


async def deaf() -> None:
    """Hold the whole process, and do not listen when asked to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(10**6)  # noqa: ASYNC251  (cruel)


async def stubborn() -> None:
    """Do not let oneself be cancelled."""
    while True:
        try:
            await asyncio.sleep(10**6)
        except BaseException:
            continue


async def fork_and_leave() -> None:
    """End, and leave a child behind that holds the connection open."""
    if os.fork():
        os._exit(0)
    time.sleep(10**6)  # noqa: ASYNC251  (cruel)


async def start_a_session() -> None:
    """Hang, with a child that no signal to the process's group reaches, and that moved its files about."""
    subprocess.Popen(  # noqa: ASYNC220  (cruel)
        [sys.executable, "-c", "import time; time.sleep(10**6)"], start_new_session=True
    )
    Path(tempfile.mkdtemp(), "left-behind").write_text("x" * 10**5)  # noqa: ASYNC240  (cruel)
    await hang()


async def leave() -> None:
    """End."""
    os._exit(3)


async def exit_politely() -> None:
    """End as a script does."""
    sys.exit(3)


async def fail() -> None:
    """Raise."""
    raise RuntimeError("the disk is gone")


async def cancel_oneself() -> None:
    """Raise what looks like a cancellation from outside."""
    raise asyncio.CancelledError


def says(*lines: bytes, then: Callable[[], Awaitable[None]] = hang) -> Callable[[], Awaitable[None]]:
    """Write bytes into the connection, past the protocol."""

    async def misbehave() -> None:
        connection = int(sys.argv[2])
        os.set_blocking(connection, True)
        for line in lines:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(connection, rest) :]
        await then()

    return misbehave


async def flood() -> None:
    """Never stop talking."""
    connection = int(sys.argv[2])
    os.set_blocking(connection, True)
    while True:
        os.write(connection, b'{"jsonrpc":"2.0","method":"news","params":{}}\n' * 100)


MISDEEDS: dict[str, Callable[[], Awaitable[None]]] = {
    "hang": hang,
    "block": block,
    "deaf": deaf,
    "stubborn": stubborn,
    "session": start_a_session,
    "fork": fork_and_leave,
    "leave": leave,
    "exit": exit_politely,
    "fail": fail,
    "cancel": cancel_oneself,
    "half": says(b'{"jsonrpc":"2.0","id":', then=leave),
    "garbage": says(b"\x00\xff\xfe not even text\n"),
    "huge": says(b"x" * (20 * 2**20)),
    "deep": says(b"[" * 10**5 + b"\n"),
    "wrong_id": says(b'{"jsonrpc":"2.0","id":4711,"result":{}}\n'),
    "odd_id": says(b'{"jsonrpc":"2.0","id":[1],"result":{}}\n'),
    "number": says(b"7\n"),
    "flood": flood,
}

GRADES: dict[str, Any] = {
    "good": 1.0,
    "text": {"score": "1.0"},
    "nan": float("nan"),
    "too_large": {"score": 10**400},
    "no_grade": object(),
    "not_json": {"score": 1.0, "info": {1, 2}},
    "is_error": {"score": 1.0, "isError": True, "content": "the judge is asleep"},
    "subscores": {"score": 1.0, "subscores": [{"name": "s", "value": 7}]},
    "subscore_list": {"score": 1.0, "subscores": {"name": "s", "value": 1}},
    "subscore_key": {"score": 1.0, "subscores": [{"name": "s", "value": 1, "points": 3}]},
}


async def misdeed(at: str, now: str, how: str) -> None:
    """Misbehave, if this is the place for it."""
    if at == now:
        await MISDEEDS[how]()


@env.template()
async def cruel(
    at: str = "", how: str = "", grade: str = "good", prompt: Any = "say something"
) -> AsyncGenerator[Any, Any]:
    """Misbehave *how*, *at* one of start, turn, grade and teardown."""
    try:
        await misdeed(at, "start", how)
        answer = yield prompt
        while answer is not None:
            await misdeed(at, "turn", how)
            answer = yield "and now?"
        await misdeed(at, "grade", how)
        yield GRADES[grade]
    finally:
        await misdeed(at, "teardown", how)


@env.template()
async def silent() -> AsyncGenerator[Any, Any]:
    """End without a grade, which the contract counts as zero."""
    yield "say something"


@tooled.template()
async def craft(at: str, how: str) -> AsyncGenerator[Any, Any]:
    """Offer a tool that misbehaves."""
    tooled.state.how = how if at == "tool" else ""
    yield "use the tool"
    yield 1.0


@tooled.tool()
async def tool() -> Any:
    """Do what the task says."""
    how = tooled.state.how
    if how == "nonsense":
        return {"a": {1, 2}, "b": object()}
    if how == "image":
        return [{"type": "image", "data": 7}]
    if how:
        await MISDEEDS[how]()
    return None
