"""The client's side of HUD's control protocol: newline-delimited JSON-RPC over a byte stream."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from hud_orchestrator.environments.lines import Lines
from hud_orchestrator.environments.protocol import Messages, as_messages, as_result, as_tools
from hud_orchestrator.environments.rpc import FRAME_LIMIT, GRADER_FAILED
from hud_orchestrator.environments.toolservers import ToolServers
from hud_orchestrator.errors import EnvironmentClosed, EnvironmentFailed, EnvironmentLost, GraderRaised
from hud_orchestrator.records import Task
from hud_orchestrator.toolbox import ToolResult

OLD_FRAME_LIMIT = 2**16
"""Bytes of the longest frame that the SDK's servers took before 0.6.21."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape of half a character; most come in pairs and are one."""


class ControlSession:
    """One connection to an environment; one call at a time.

    A call that is cut off while it waits leaves its answer to come: the next call reads past it. So
    an environment that was busy when its agent was cut short can still grade, once it is done.
    """

    def __init__(self, lines: Lines, *, tells_ends: bool = False) -> None:
        """Talk over *lines*; *tells_ends*: the server says when a graded task has put its things away."""
        self._lines = lines
        self._tells_ends = tells_ends
        self._numbers = itertools.count(1)
        # Tools may be called at once, and one connection has one line after the other.
        self._turn = anyio.Lock(fast_acquire=True)
        self._graded = self._over = False
        """Whether the newest task has given its grade, and has put its things away."""
        self._owed: set[int] = set()
        """Numbers of calls that were sent and not answered yet."""
        self._intact = True
        """False once a frame was sent in part, or an answer fitted no call."""

    @property
    def busy(self) -> bool:
        """Whether a call is on its way, or an answer is owed."""
        return self._turn.locked() or bool(self._owed)

    @property
    def healthy(self) -> bool:
        """Whether the next line is known to answer the next call."""
        return self._intact and not self._owed

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its result; a call made meanwhile waits for its turn.

        Raises:
            EnvironmentFailed: it answered with an error.
            EnvironmentLost: it answered wrongly, or not at all.
        """
        async with self._turn:
            return await self._call(method, params)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        line = _encoded(method, {"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        if not self._intact:
            raise EnvironmentLost(f"{method}: the connection was left in the middle of a frame")
        self._intact = False
        with _closed_means_lost(method, sent=len(line)):
            await self._lines.send(line)
            self._intact = True
            self._owed.add(number)
            answer = await self._answer(method, number)
        if "error" in answer:
            raise _failure(method, answer["error"])
        result = answer.get("result")
        if not isinstance(result, dict):
            raise EnvironmentLost(
                f"{method}: answered {type(result).__name__} as its result, expected an object"
            )
        if method == "tasks.start":
            self._graded = self._over = False  # what was said of the task before came before this
        self._graded |= "score" in result
        return result

    async def put_away(self, *, within_s: float) -> bool:
        """Have its task put away, even while a call is pending; whether it said that it did."""
        with anyio.move_on_after(within_s):
            try:
                if self._tells_ends and self._graded:
                    await self._until_over()
                else:
                    await self.call("tasks.cancel")
            except EnvironmentFailed:
                return False
            return True
        return False

    async def _until_over(self) -> None:
        method = "tasks.ended"
        async with self._turn:
            with _closed_means_lost(method, sent=0):
                while not self._over:
                    self._settle(method, await self._line(method))

    async def _answer(self, method: str, number: int) -> dict[str, Any]:
        while (answer := await self._line(method)).get("id") != number:
            if answer.get("id") is None and "error" in answer:
                # About a frame that it could not read; it closes the connection now.
                self._intact = False
                break
            self._settle(method, answer)
        self._owed.discard(number)
        return answer

    def _settle(self, method: str, frame: dict[str, Any]) -> None:
        """Take a frame that answers no call which still waits."""
        told = frame.get("id")
        if self._tells_ends and frame.get("method") == "tasks.ended":
            self._over = True
        # A list, say, cannot even be looked for.
        elif isinstance(told, int) and told in self._owed:
            self._owed.discard(told)
        else:
            self._intact = False
            raise EnvironmentLost(f"{method}: answered request {told!r}, which nobody waits for")

    async def _line(self, method: str) -> dict[str, Any]:
        try:
            line = await self._lines.receive()
        except anyio.DelimiterNotFound as error:
            self._intact = False
            raise EnvironmentLost(
                f"{method}: answered with a frame above {FRAME_LIMIT // 2**20} MiB"
            ) from error
        try:
            answer = read_frame(line)
        except (ValueError, RecursionError) as error:
            self._intact = False
            raise EnvironmentLost(f"{method}: answered something that is not JSON") from error
        if not isinstance(answer, dict):
            raise EnvironmentLost(f"{method}: answered {type(answer).__name__}, expected a JSON-RPC object")
        return answer


def _failure(method: str, error: Any) -> EnvironmentFailed:
    if not isinstance(error, dict):
        return EnvironmentFailed(f"{method}: {error}")
    kind = GraderRaised if error.get("code") == GRADER_FAILED else EnvironmentFailed
    return kind(f"{method}: {error.get('message')}")


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


# Made once: the functions of the module make one each time that they are asked for something special.
READ = json.JSONDecoder(parse_constant=str, parse_float=_finite).decode
WRITE = json.JSONEncoder(separators=(",", ":")).encode


def read_frame(line: bytes) -> Any:
    """A frame's JSON, such that it can be written as JSON again, whatever the environment sent.

    ``NaN`` and numbers beyond a float's become text, which is no number to anybody. Half of a surrogate
    pair, which UTF-8 has no bytes for, becomes a question mark.
    """
    frame = READ(line.decode())
    if SURROGATE.search(line):
        whole = json.dumps(frame, ensure_ascii=False).encode("utf-8", "replace")
        frame = json.loads(whole)
    return frame


def _encoded(method: str, frame: dict[str, Any]) -> bytes:
    line = WRITE(frame).encode()
    if len(line) > FRAME_LIMIT:
        raise EnvironmentFailed(
            f"{method}: the request has {len(line)} bytes, and a frame at most {FRAME_LIMIT // 2**20} MiB"
        )
    return line + b"\n"


@contextmanager
def _closed_means_lost(method: str, *, sent: int) -> Iterator[None]:
    try:
        yield
    except (
        anyio.EndOfStream,
        anyio.IncompleteRead,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
    ) as error:
        hint = f"; servers before 0.6.21 take frames below 64 KiB, and this one had {sent} bytes"
        raise EnvironmentClosed(
            f"{method}: the environment ended or closed its connection"
            f"{hint if sent > OLD_FRAME_LIMIT else ''}; environments.log has what it printed"
        ) from error


class Call(Protocol):
    """A session's ``call``, or what stands before it."""

    async def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its result."""
        ...


class ControlEpisode:
    """One task over a control session."""

    def __init__(
        self,
        call: Call,
        start: Mapping[str, Any],
        *,
        conversational: bool = True,
        servers: ToolServers | None = None,
    ) -> None:
        """Drive the task that *call* has started.

        Args:
            call: sends a request.
            start: the start frame.
            conversational: whether the server knows ``tasks.turn``.
            servers: where tools are called that the start frame does not list.
        """
        self._call = call
        self._grade: Mapping[str, Any] | None = None
        self._servers = servers
        self.prompt: Messages = as_messages(start.get("prompt"))
        self.tools = as_tools(start.get("tools")) + (servers.tools if servers else ())
        self.conversational = conversational

    async def turn(self, answer: str) -> Messages | None:
        """Hand over an answer; further messages, or ``None`` when the grade is there."""
        frame = await self._call("tasks.turn", answer=answer)
        if "score" not in frame:
            return as_messages(frame.get("prompt"))
        self._grade = frame
        return None

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool."""
        if self._servers is not None and self._servers.have(name):
            return await self._servers.call(name, arguments)
        return as_result(await self._call("tools.call", name=name, arguments=dict(arguments)))

    async def grade(self, answer: Any) -> Mapping[str, Any]:
        """The grade frame, whatever it says."""
        return self._grade or await self._call("tasks.grade", answer=answer)

    async def follow(self, task: Task) -> ControlEpisode:
        """Begin *task* on the same connection."""
        start = await self._call("tasks.start", env=task.env, id=task.id, args=dict(task.args))
        return ControlEpisode(self._call, start, conversational=self.conversational, servers=self._servers)
