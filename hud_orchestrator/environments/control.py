"""The client's side of HUD's control protocol: newline-delimited JSON-RPC over a byte stream."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from hud_orchestrator.environments.protocol import Messages, as_messages
from hud_orchestrator.errors import EnvironmentFailed

FRAME_LIMIT = 16 * 2**20
"""Bytes of the longest frame that is read."""


class ControlSession:
    """One connection to an environment; one call at a time."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._numbers = itertools.count(1)
        self.healthy = True
        """False once a call was cut off or answered wrongly: nobody knows what the next line answers."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its result.

        Raises:
            EnvironmentFailed: it answered with an error, wrongly, or not at all.
        """
        number = next(self._numbers)
        frame = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.healthy, was_healthy = False, self.healthy
        answer = await self._exchange(method, json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        if answer.get("id") != number:
            raise EnvironmentFailed(f"{method}: answered request {answer.get('id')!r}, expected {number}")
        self.healthy = was_healthy
        if "error" in answer:
            error = answer["error"]
            raise EnvironmentFailed(f"{method}: {error.get('message') if isinstance(error, dict) else error}")
        result = answer.get("result")
        if not isinstance(result, dict):
            raise EnvironmentFailed(
                f"{method}: answered {type(result).__name__} as its result, expected an object"
            )
        return result

    async def _exchange(self, method: str, request: bytes) -> dict[str, Any]:
        try:
            await self._stream.send(request)
            line = await self._lines.receive_until(b"\n", FRAME_LIMIT)
        except (
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
        ) as error:
            raise EnvironmentFailed(f"{method}: the environment closed its connection") from error
        except anyio.DelimiterNotFound as error:
            raise EnvironmentFailed(
                f"{method}: answered with a frame above {FRAME_LIMIT // 2**20} MiB"
            ) from error
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise EnvironmentFailed(f"{method}: answered something that is not JSON") from error
        if not isinstance(answer, dict):
            raise EnvironmentFailed(f"{method}: answered {type(answer).__name__}, expected a JSON-RPC object")
        return answer


class ControlEpisode:
    """One task over a control session."""

    def __init__(self, session: ControlSession, start: Mapping[str, Any]) -> None:
        self._session = session
        self._grade: Mapping[str, Any] | None = None
        self.prompt: Messages = as_messages(start.get("prompt"))

    async def turn(self, answer: str) -> Messages | None:
        """Hand over an answer; further messages, or ``None`` when the grade is there."""
        frame = await self._session.call("tasks.turn", answer=answer)
        if "score" not in frame:
            return as_messages(frame.get("prompt"))
        self._grade = frame
        return None

    async def grade(self, answer: str | None) -> Mapping[str, Any]:
        """The grade frame, checked."""
        frame = self._grade or await self._session.call("tasks.grade", answer=answer)
        score = frame.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise EnvironmentFailed(f"tasks.grade: score is {score!r}, expected a finite number")
        if frame.get("isError"):
            raise EnvironmentFailed(
                f"tasks.grade: the grader reports an error: {frame.get('content') or 'no content'}"
            )
        return frame
