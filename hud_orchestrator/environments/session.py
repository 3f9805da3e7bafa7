"""One control connection of an environment server: dispatch, and one task call at a time.

``tasks.turn`` is ours, for templates that ask for more than one answer, and so is ``tools.call``, which
spares a tool a server of its own. To the daemon, ``tasks.ended`` is said without being asked, when a graded
template has put its things away. Behind one of these two, further task calls wait for their turn: a grade
may be asked for while an agent that was cut short still has a turn running. Behind the calls of HUD's
protocol nothing waits, as its servers have it. ``tasks.cancel`` and ``bye`` interrupt any call.
Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from hud_orchestrator.environments.frames import NotAFrame
from hud_orchestrator.environments.parameters import arguments_of
from hud_orchestrator.environments.rpc import (
    FAILED,
    GRADER_FAILED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNKNOWN_METHOD,
    RpcError,
    error_frame,
    read_frame,
    result_frame,
)
from hud_orchestrator.environments.runner import Runner, TaskMistake, UnknownTemplate
from hud_orchestrator.environments.sessions import Sessions
from hud_orchestrator.errors import JudgeFailed

OURS = ("tasks.turn", "tools.call")
"""Methods beyond HUD's protocol."""

ENDED = b'{"jsonrpc":"2.0","method":"tasks.ended"}\n'

Params = dict[str, Any]
Answer = dict[str, Any]


class Session:
    """Answers the requests of one connection."""

    def __init__(self, sessions: Sessions, writer: asyncio.StreamWriter, *, tells_ends: bool = False) -> None:
        """Answer through *writer*; *tells_ends*: say when a graded template has put its things away."""
        self._sessions = sessions
        self._tells_ends = tells_ends
        self._writer = writer
        self._id = sessions.enter()
        self._call: asyncio.Task[None] | None = None
        self._method = ""
        """Of the call."""
        self._closing: asyncio.Task[None] | None = None
        """A template that puts its things away."""
        self._task_calls: dict[str, Callable[[Params], Awaitable[Answer]]] = {
            "tasks.start": self._start,
            "tasks.grade": self._grade,
            "tasks.turn": self._turn,
            "tools.call": self._tool,
        }
        self._plain_calls: dict[str, Callable[[Params], Answer]] = {
            "hello": self._hello,
            "tasks.list": self._list,
        }

    async def serve(self, reader: asyncio.StreamReader, first: dict[str, Any] | None = None) -> None:
        """Answer until the other side closes or says ``bye``.

        Raises:
            FrameTooLarge: it sent more than a frame may have.
        """
        try:
            frame = first or await read_frame(reader)
            while frame is not None and await self._receive(frame):
                await self._writer.drain()
                frame = await read_frame(reader)
            if self._running and self._method == "tasks.start":
                await asyncio.wait({self._running})  # it is parked, for whoever comes back
        finally:
            torn = self._running is not None and self._method == "tasks.turn"
            await self._stop()
            if torn:
                self._sessions.drop(self._id)  # a template that was interrupted cannot go on
            self._sessions.leave(self._id)

    @property
    def _running(self) -> asyncio.Task[None] | None:
        return self._call if self._call is not None and not self._call.done() else None

    async def _receive(self, frame: dict[str, Any]) -> bool:
        """Act on one frame; ``False`` after ``bye``."""
        method, number, params = str(frame.get("method")), frame.get("id"), frame.get("params") or {}
        if not isinstance(params, dict):
            self._send(number, RpcError(INVALID_PARAMS, f"{method}: params must be an object"))
            return True
        if method in ("tasks.cancel", "bye"):
            await self._interrupt()
            self._send(number, {"cancelled": True} if method == "tasks.cancel" else {"goodbye": True})
            return method != "bye"
        if self._running and (self._method not in OURS or method == "tasks.start"):
            self._send(number, RpcError(INVALID_REQUEST, f"{method}: a task call is still running"))
        elif method in self._task_calls:
            work = self._in_turn(self._running, number, self._task_calls[method], params)
            self._call, self._method = asyncio.create_task(work), method
        else:
            self._send(number, self._plain(method, params))
        return True

    async def _in_turn(
        self,
        before: asyncio.Task[None] | None,
        number: Any,
        call: Callable[[Params], Awaitable[Answer]],
        params: Params,
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._send(number, await self._answer(call, params))

    async def _answer(self, call: Callable[[Params], Awaitable[Answer]], params: Params) -> Answer | RpcError:
        try:
            return await call(params)
        except RpcError as error:
            return error
        except asyncio.CancelledError:
            return RpcError(FAILED, "tasks.cancel interrupted the task")
        except UnknownTemplate as error:
            return RpcError(INVALID_PARAMS, str(error))
        except (TaskMistake, NotAFrame) as error:
            return RpcError(FAILED, str(error))
        except Exception as error:
            code = GRADER_FAILED if isinstance(error, JudgeFailed) else FAILED
            return RpcError(code, f"{type(error).__name__}: {error}")

    async def _start(self, params: Params) -> Answer:
        await self._drop()
        if self._closing is not None:
            # A verifier begins when what it verifies is put away, as with the SDK's servers.
            if not self._closing.done():
                await asyncio.wait({self._closing})
            self._closing = None
        name, args = params.get("id"), params.get("args")
        if not isinstance(name, str):
            raise RpcError(INVALID_PARAMS, "tasks.start: id must be a text")
        if args is not None and not isinstance(args, dict):
            raise RpcError(INVALID_PARAMS, "tasks.start: args must be an object")
        runner = Runner(self._sessions.environment(params.get("env")))
        self._sessions.begin(self._id, runner)
        try:
            frame = await runner.start(name, args or {})
            result_frame(0, frame)  # one that cannot be sent has not started
        except BaseException:
            await self._drop()
            raise
        return frame

    async def _turn(self, params: Params) -> Answer:
        runner = self._sessions.runner(self._id)
        frame = await runner.turn(params.get("answer"))
        if "score" in frame:
            self._put_away(runner)
        return frame

    async def _tool(self, params: Params) -> Answer:
        name, arguments = params.get("name"), params.get("arguments") or {}
        return await self._sessions.runner(self._id).call_tool(str(name), dict(arguments))

    async def _grade(self, params: Params) -> Answer:
        runner = self._sessions.claim(self._id)
        try:
            return await runner.grade(params.get("answer"))
        finally:
            self._put_away(runner)

    def _put_away(self, runner: Runner) -> None:
        if self._closing is None:  # a turn may have given the grade already
            self._closing = self._sessions.close(runner)
            if self._tells_ends:
                # Not along with the grade: a template that hangs in this has graded all the same.
                self._closing.add_done_callback(self._tell_end)

    def _tell_end(self, closed: asyncio.Task[None]) -> None:
        if closed.cancelled() or closed.exception() is None:  # else the process is on its way out
            self._writer.write(ENDED)

    def _plain(self, method: str, params: Params) -> Answer | RpcError:
        if method not in self._plain_calls:
            return RpcError(UNKNOWN_METHOD, f"method not found: {method}")
        try:
            return self._plain_calls[method](params)
        except RpcError as error:
            return error

    def _hello(self, params: Params) -> Answer:
        if params.get("session_id") is not None:
            self._id = self._sessions.resume(params["session_id"], instead_of=self._id)
        first = self._sessions.first
        return {
            "session_id": self._id,
            "env": {"name": first.name, "version": first.version},
            "bindings": self._sessions.publish(self._id),
            "methods": list(OURS),
        }

    def _list(self, _: Params) -> Answer:
        return {
            "tasks": [
                {"id": one.id, "description": one.description, "args": arguments_of(one.function)}
                for environment in self._sessions.all
                for one in environment.templates.values()
            ]
        }

    async def _interrupt(self) -> None:
        await self._stop()
        await self._drop()
        if self._closing is not None:
            await asyncio.wait({self._closing})
            self._closing = None

    async def _stop(self) -> None:
        call, self._call = self._call, None
        if call is not None and not call.done():
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call

    async def _drop(self) -> None:
        dropped = self._sessions.drop(self._id)
        if dropped is not None:
            self._closing = dropped
            await asyncio.wait({dropped})

    def _send(self, number: Any, answer: Answer | RpcError) -> None:
        if number is None:
            return
        try:
            line = (
                error_frame(number, answer) if isinstance(answer, RpcError) else result_frame(number, answer)
            )
        except RpcError as error:
            line = error_frame(number, error)
        self._writer.write(line)
