"""The sessions of one environment server: whose task is where, and who is connected. Standard library only.

A task belongs to a session, not to a connection. When the connection breaks, the task stays, parked,
until a later connection takes the session up again, or asks blindly for the grade of the only one parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from hud_orchestrator.environments.rpc import INVALID_PARAMS, INVALID_REQUEST, RpcError
from hud_orchestrator.environments.runner import Runner
from hud_orchestrator.environments.template import Environment

Publish = Callable[[str], list[dict[str, Any]]]
"""What a session, by its number, is told about the capabilities beside its connection."""


class Sessions:
    """Every session of a server."""

    def __init__(self, known: Mapping[str, Environment], publish: Publish = lambda _: []) -> None:
        self._known = known
        self.publish = publish
        self._runners: dict[str, Runner] = {}
        self._live: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def first(self) -> Environment:
        """The environment that the server is called after."""
        return next(iter(self._known.values()))

    @property
    def all(self) -> tuple[Environment, ...]:
        """Every environment."""
        return tuple(self._known.values())

    def environment(self, name: str | None) -> Environment:
        """The environment of that name; of no name, the only one.

        Raises:
            RpcError: there is none.
        """
        if name is None and len(self._known) == 1:
            return self.first
        if name is None or name not in self._known:
            raise RpcError(
                INVALID_PARAMS, f"there is no environment {name!r}; the source defines {sorted(self._known)}"
            )
        return self._known[name]

    def enter(self) -> str:
        """A new session, connected."""
        session = f"sess-{uuid.uuid4().hex[:8]}"
        self._live.add(session)
        return session

    def leave(self, session: str) -> None:
        """Its connection is gone; its task is parked."""
        self._live.discard(session)

    def resume(self, session: object, *, instead_of: str) -> str:
        """Connect a parked session, in place of the one that the connection began with.

        Raises:
            RpcError: nothing of that number is parked.
        """
        if session == instead_of:
            return instead_of
        if not isinstance(session, str):
            raise RpcError(INVALID_PARAMS, "hello: session_id must be a text")
        if session in self._live:
            raise RpcError(INVALID_REQUEST, f"session {session!r} has a live connection")
        if session not in self._runners:
            raise RpcError(INVALID_REQUEST, f"unknown session: {session!r}")
        self._live.discard(instead_of)
        self._live.add(session)
        return session

    def begin(self, session: str, runner: Runner) -> None:
        """The session's task."""
        self._runners[session] = runner

    def runner(self, session: str) -> Runner:
        """The session's task.

        Raises:
            RpcError: it has none.
        """
        if session not in self._runners:
            raise RpcError(INVALID_REQUEST, "no task in progress")
        return self._runners[session]

    def claim(self, session: str) -> Runner:
        """The session's task, or the only one parked, which ends with its grade.

        Raises:
            RpcError: there is none, or more than one.
        """
        if session in self._runners:
            return self._runners.pop(session)
        parked = sorted(self._runners.keys() - self._live)
        if not parked:
            raise RpcError(INVALID_REQUEST, "no task in progress")
        if len(parked) > 1:
            raise RpcError(
                INVALID_REQUEST,
                f"{len(parked)} parked sessions ({', '.join(parked)}): say hello with one's session_id",
            )
        return self._runners.pop(parked[0])

    def drop(self, session: str) -> asyncio.Task[None] | None:
        """End the session's task; what its template puts away, it puts away in the task that is returned."""
        runner = self._runners.pop(session, None)
        return self.close(runner) if runner else None

    def close(self, runner: Runner) -> asyncio.Task[None]:
        """Let a template put its things away, which must not keep anybody waiting."""
        closing = asyncio.create_task(_closed(runner))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    async def close_all(self, *, within_s: float) -> None:
        """End every task, also those that nobody is connected to."""
        for session in list(self._runners):
            self.drop(session)
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=within_s)
        for late in self._closing:
            late.cancel()


async def _closed(runner: Runner) -> None:
    # What a template's cleanup raises is nobody's answer any more.
    with contextlib.suppress(Exception):
        await runner.close()
