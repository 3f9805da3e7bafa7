"""Our agent, as an environment of ``verifiers`` sees one: it runs a task, or is conversed with."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from hud_orchestrator.adapters.verifiers.seat import Seat


class Player:
    """The library's ``Agent``, as far as text needs it. *vf* is the library."""

    def __init__(self, vf: Any, name: str, config: Any, seat: Seat) -> None:
        self._vf = vf
        self._seat = seat
        self.name = name
        self.config = config
        self.trainable = True
        self.traces: list[Any] = []
        """Of the conversations that are over."""

    async def run(self, task: Any, **_: Any) -> Any:
        """Answer the task's prompt once; the scored trace."""
        async with self.interaction(task) as conversation:
            await conversation.turn()
        return conversation.trace

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncGenerator[Conversation, None]:
        """Converse; leaving scores what was said."""
        conversation = Conversation(self._vf, task, self, self._seat)
        await task.setup(conversation.trace, None)
        yield conversation
        trace = conversation.trace
        trace.stop("user_closed")
        trace.ok = True
        await task.finalize(trace, None)
        await task.score(trace)
        self.traces.append(trace)


class Conversation:
    """The library's ``Interaction``: a turn is a message to the agent and its reply."""

    def __init__(self, vf: Any, task: Any, player: Player, seat: Seat) -> None:
        self._vf = vf
        self._task = task
        self._seat = seat
        about = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
        self.trace = vf.Trace(
            task=about,
            state=vf.state.state_cls(type(task))(),
            agent=vf.AgentInfo(config=player.config, name=player.name, trainable=player.trainable),
        )

    async def turn(self, message: Any = None) -> Any:
        """Say *message*, or the task's prompt where the conversation begins; the agent's reply as a segment.

        Raises:
            ValueError: there is nothing to say.
        """
        if self.trace.stop_condition is not None:
            return self._vf.Segment(messages=[], terminated=True)
        opening = self._opening() if not self.trace.nodes else []
        said = [*opening, *self._typed(message)]
        if not said:
            raise ValueError("a conversation that has begun goes on with a message")
        for one in said:
            self._add(one)
        answer = await self._seat.ask([_plain(one) for one in said])
        if answer is None:
            self.trace.stop("cut_short")
            return self._vf.Segment(messages=[], terminated=True)
        reply = self._vf.AssistantMessage(content=answer)
        self._add(reply, sampled=True)
        await self._look_for_a_stop()
        return self._vf.Segment(messages=[reply])

    def _opening(self) -> list[Any]:
        data = self._task.data
        system = [self._vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
        return [*system, *self._typed(data.prompt)]

    def _typed(self, message: Any) -> list[Any]:
        if message is None:
            return []
        if isinstance(message, str):
            return [self._vf.UserMessage(content=message)]
        parse = self._vf.types.parse_message
        return [parse(one) if isinstance(one, dict) else one for one in message]

    def _add(self, message: Any, *, sampled: bool = False) -> None:
        nodes = self.trace.nodes
        parent = len(nodes) - 1 if nodes else None
        nodes.append(self._vf.MessageNode(message=message, parent=parent, sampled=sampled))

    async def _look_for_a_stop(self) -> None:
        for stop in self._task.hooks("stop"):
            verdict = stop(self.trace)
            if await verdict if inspect.isawaitable(verdict) else verdict:
                self.trace.stop(stop.__name__)
                return


def _plain(message: Any) -> dict[str, Any]:
    """A message as the gateway takes it."""
    dumped: dict[str, Any] = message.model_dump(mode="json", exclude_none=True)
    return dumped
