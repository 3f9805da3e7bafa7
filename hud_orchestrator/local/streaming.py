"""Chat completions as server-sent events.

For every choice: a chunk with the role, chunks with content as it grows, tool calls whole, and a last
chunk with the finish reason and, where wished for, the log-probabilities and token ids of the choice.
Content never ends inside a character, and nothing is sent that may yet turn out to be a stop string or
a tool call. An error after the beginning is an event of its own, for the status has been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hud_orchestrator.local.answers import Answer
from hud_orchestrator.local.replies import Refused, openai_error
from hud_orchestrator.local.tools import held_back


class Bell:
    """Lets the engine's thread wake the event loop, at most once until it has looked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self._ringing = False

    def ring(self) -> None:
        """Wake whoever listens. From any thread."""
        if not self._ringing:
            self._ringing = True
            # A loop that has ended has nobody left to wake.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._rung.wait()
        self._rung.clear()
        # From here on a ring counts anew; what is looked at next includes all until here.
        self._ringing = False


class EventStream(StreamingResponse):
    """A reply that goes on while its tokens are sampled."""

    media_type = "text/event-stream"

    def __init__(
        self,
        answer: Answer,
        bell: Bell,
        *,
        delivered: Callable[[], Awaitable[None]],
        withdraw: Callable[[], None],
    ) -> None:
        """Stream *answer*; then call *delivered*, or *withdraw* when the client has gone away."""
        self._events = _events(answer, bell, delivered=delivered)
        self._done = answer.completion.done
        self._withdraw = withdraw
        super().__init__(self._events)
        self.headers["Cache-Control"] = "no-cache"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Here and not in the events: a client may leave before the first of them is asked for.
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._done.done():
                self._withdraw()

    async def stream_response(self, send: Send) -> None:
        # Closed at once, not when it is collected.
        async with contextlib.aclosing(self._events):
            await super().stream_response(send)


class _Growing:
    """One choice, and what has been sent of it."""

    def __init__(self, answer: Answer, index: int) -> None:
        self.is_finished = False
        self._answer = answer
        self._index = index
        self._sequence = answer.completion.sequences[index]
        self._begun = False
        self._sent = 0
        self._text = ""
        # Tokens that are in the text, and those of them that are decoded again with the next.
        self._known = 0
        self._window = 0

    def news(self) -> Iterator[str]:
        """Events about what has come to be certain since the last call."""
        # Asked first: it may end while it is looked at, and then its end is for the next call.
        has_ended = self._sequence.finish_reason is not None
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})
        if has_ended:
            self.is_finished = True
            yield from self._end()
        elif fresh := self._certain()[self._sent :]:
            self._sent += len(fresh)
            yield self._chunk({"content": fresh})

    def _end(self) -> Iterator[str]:
        message = self._answer.listener.message(self._sequence, self._index)
        if rest := (message.content or "")[self._sent :]:
            yield self._chunk({"content": rest})
        if message.calls:
            calls = [{"index": number, **call} for number, call in enumerate(message.calls)]
            yield self._chunk({"tool_calls": calls})
        tokens = self._answer.tokens(self._sequence)
        yield self._chunk({}, finish_reason=message.finish_reason, **tokens)

    def _certain(self) -> str:
        """The content so far, without what may yet be a stop string or a call."""
        self._decode()
        stops = self._sequence.completion.sampling.stop
        ends = [self._answer.listener.plain(self._text), *(held_back(self._text, stop) for stop in stops)]
        return self._text[: min(ends)]

    def _decode(self) -> None:
        """Decode new tokens together with some before them: a word's beginning depends on its neighbours."""
        ids = self._sequence.token_ids[self._window :]
        before, now = (self._of(part) for part in (ids[: self._known - self._window], ids))
        # At the end of the text, the replacement character may be a character's first bytes.
        if len(now) > len(before) and not now.endswith("\ufffd"):
            self._text += now[len(before) :]
            self._window, self._known = self._known, self._window + len(ids)

    def _of(self, ids: list[int]) -> str:
        return self._answer.vocabulary.text(ids, with_markers=self._answer.listener.with_markers)

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None, **more: Any) -> str:
        choice = {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(self._answer.head("chat.completion.chunk") | {"choices": [choice | more]})


async def _events(
    answer: Answer, bell: Bell, *, delivered: Callable[[], Awaitable[None]]
) -> AsyncGenerator[str, None]:
    completion = answer.completion
    open_ones = [_Growing(answer, index) for index in range(len(completion.sequences))]
    completion.done.add_done_callback(lambda _: bell.ring())
    try:
        while open_ones:
            await bell.wait()
            if completion.abandoned:
                break
            for growing in open_ones:
                for event in growing.news():
                    yield event
            open_ones = [one for one in open_ones if not one.is_finished]
        completion.done.result()
        if answer.asked.stream_options and answer.asked.stream_options.include_usage:
            usage = {"choices": [], "usage": answer.usage()}
            yield _event(answer.head("chat.completion.chunk") | usage)
        yield "data: [DONE]\n\n"
        await delivered()
    except Refused as refusal:
        yield _event(openai_error(refusal))


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"
