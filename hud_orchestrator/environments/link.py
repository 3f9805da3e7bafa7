"""A control connection that is made, kept alive and made anew, and the tunnels beside it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteStream

from hud_orchestrator.environments.bindings import Manifest, as_manifest
from hud_orchestrator.environments.control import ControlSession
from hud_orchestrator.environments.lines import StreamLines
from hud_orchestrator.environments.rpc import FRAME_LIMIT
from hud_orchestrator.errors import EnvironmentClosed, EnvironmentFailed, EnvironmentLost, ToolsLost

AGAIN_S = 0.5
"""Seconds between two attempts to connect."""

RESUME_S = 10
"""Seconds in which a lost connection is to be made anew."""

REFUSALS = 3
"""Times that a session may be refused meanwhile: a server may hear of the new connection first, and then
takes the old one for live."""

Dial = Callable[[], Awaitable[anyio.abc.ByteStream]]
"""Opens a connection to the control port, or raises ``OSError``; ``EnvironmentLost`` when there never will
be one again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient a connection is, in seconds."""

    ready_s: float = 120
    """For the environment to be there and to answer ``hello``."""
    teardown_s: float = 2
    """For the environment to drop its task."""
    heartbeat_s: float = 120
    """Between two signs of life, while no call is pending."""
    heartbeat_answer_s: float = 5
    """For the answer to one."""


class Link:
    """A session with an environment, over one connection after the other.

    A task that waits for its grade survives its connection: the environment keeps it, and the session's
    number leads back to it.
    """

    def __init__(self, dial: Dial, *, named: str, pace: Pace) -> None:
        """Connect through *dial*; *named* says in errors what was dialled."""
        self._dial = dial
        self._named = named
        self._pace = pace
        self._stream: anyio.abc.ByteStream | None = None
        self._session: ControlSession | None = None
        self._manifest: Manifest | None = None
        self._has_task = False
        self._mending = anyio.Lock()

    @property
    def manifest(self) -> Manifest:
        """What the environment said about itself."""
        assert self._manifest is not None  # open() has returned
        return self._manifest

    async def open(self) -> None:
        """Connect and greet; what is not there yet may still come.

        Raises:
            EnvironmentFailed: it was not there in time, or answered with an error.
        """
        await self._greet_until(self._pace.ready_s)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its result.

        A grade is asked for once more, of the same task, when the connection broke: an environment that
        has given it knows the session no longer, and says so.

        Raises:
            EnvironmentFailed: as :meth:`ControlSession.call`.
        """
        self._has_task |= method == "tasks.start"
        try:
            answer = await self._ask(method, params)
        except EnvironmentClosed:
            if method != "tasks.grade":
                raise
            await self._resume(self._session)
            answer = await self._ask(method, params)
        self._has_task &= method != "tasks.grade"
        return answer

    async def keep_alive(self) -> None:
        """Send a sign of life now and then, for connections that end when nothing travels.

        Raises:
            EnvironmentLost: the connection broke, and could not be made anew.
        """
        while True:
            await anyio.sleep(self._pace.heartbeat_s)
            session = self._session
            if session is None or session.busy:
                continue
            try:
                with anyio.fail_after(self._pace.heartbeat_answer_s):
                    await self._ask("hello", {"session_id": self.manifest.session_id})
            except (TimeoutError, EnvironmentLost):
                await self._resume(session)
            except EnvironmentFailed:
                return  # it answers, and does not know sessions

    async def tunnel(self, capability: str) -> anyio.abc.ByteStream:
        """Open a stream of bytes to a capability.

        Raises:
            ToolsLost: the environment or the capability cannot be reached.
        """
        try:
            stream = BufferedByteStream(await self._dial())
        except OSError as error:
            raise ToolsLost(f"{self._named}: tunnel to {capability!r}: {error}") from error
        try:
            refusal = await _open_tunnel(stream, capability)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        if refusal is None:
            return stream
        await anyio.aclose_forcefully(stream)
        raise ToolsLost(f"{self._named}: tunnel to {capability!r}: {refusal}")

    async def aclose(self) -> None:
        """Let a task go that was not graded, and close the connection; takes ``teardown_s`` at most."""
        if self._session is not None and self._has_task:
            await self._session.put_away(within_s=self._pace.teardown_s)
        await self._hang_up()

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        async with self._mending:
            session = self._session
        if session is None:
            raise EnvironmentClosed(f"{method}: {self._named}: the connection is closed")
        return await session.call(method, **params)

    async def _resume(self, broken: ControlSession | None) -> None:
        async with self._mending:
            if self._session is not broken:
                return  # somebody else found it broken, and mended it
            try:
                await self._greet_until(RESUME_S, refusals=REFUSALS, session_id=self.manifest.session_id)
            except EnvironmentFailed as error:
                raise EnvironmentLost(f"{self._named}: its connection broke: {error}") from error

    async def _greet_until(self, within_s: float, *, refusals: int = 0, **params: Any) -> None:
        reason = "nothing was answered"
        with anyio.move_on_after(within_s):
            while True:
                await self._hang_up()
                try:
                    return await self._greet(params)
                except EnvironmentClosed:
                    reason = "it closes the connection"
                except OSError as error:
                    reason = str(error)
                except EnvironmentLost:
                    raise
                except EnvironmentFailed as error:
                    reason, refusals = str(error), refusals - 1
                    if refusals < 0:
                        raise
                await anyio.sleep(AGAIN_S)
        raise EnvironmentFailed(f"{self._named}: no environment answered in {within_s:g} s: {reason}")

    async def _greet(self, params: dict[str, Any]) -> None:
        self._stream = await self._dial()
        self._session = ControlSession(StreamLines(self._stream))
        self._manifest = as_manifest(await self._session.call("hello", **params))

    async def _hang_up(self) -> None:
        stream, self._stream, self._session = self._stream, None, None
        if stream is not None:
            await anyio.aclose_forcefully(stream)


async def _open_tunnel(stream: BufferedByteStream, capability: str) -> str | None:
    """Ask for the tunnel; why it was refused, or ``None``."""
    frame = {"jsonrpc": "2.0", "id": 1, "method": "tunnel.open", "params": {"capability": capability}}
    try:
        await stream.send(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        answer = json.loads(await stream.receive_until(b"\n", FRAME_LIMIT))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
        return "the connection was closed"
    except (ValueError, anyio.DelimiterNotFound):
        return "the answer is no frame"
    if not isinstance(answer, dict):
        return "the answer is no frame"
    error = answer.get("error")
    return str(error.get("message") if isinstance(error, dict) else error) if error else None
