"""The one loop: sample a turn, run its tools or hand it over, until the environment has enough.

prompt -> turn -> tool calls? -- yes --> call them, all at once --> results -> turn ...
                      |
                      no --> an environment that talks: turn(answer) -> further messages -> turn ...
                      |                                             \\-> it has its grade: done
                      +----> any other: the answer is left for the grader: done
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import anyio

from hud_orchestrator.agents.protocol import Episode, Message, Policy, ToolCall, Transcript
from hud_orchestrator.agents.tools import ToolNames, result_messages
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Outcome
from hud_orchestrator.toolbox import ToolResult


class ChatAgent:
    """Converses, with tools where the environment has some."""

    def __init__(
        self, *, system_prompt: str | None, max_turns: int, tool_timeout_s: float | None = None
    ) -> None:
        """Say at most *max_turns* turns.

        Args:
            system_prompt: put before every conversation.
            max_turns: turns of the model, calls of tools included.
            tool_timeout_s: seconds after which a tool's silence is answered to the model as an error.
                ``None``: the deadline alone bounds it.
        """
        self._system_prompt = system_prompt
        self._max_turns = max_turns
        self._tool_timeout_s = tool_timeout_s

    async def act(self, episode: Episode, policy: Policy, transcript: Transcript) -> None:
        """Converse until the environment has its grade, or an answer, or the turns are used up."""
        messages: list[Message] = []
        if self._system_prompt:
            messages.append({"role": "system", "content": self._system_prompt})
        messages += episode.prompt
        transcript.notes.told(messages)
        names = ToolNames(episode.tools)
        talks = episode.conversational and (self._max_turns > 1 or bool(names.specs))
        for _ in range(self._max_turns):
            turn = await policy.sample(messages, tools=names.specs)
            transcript.text = turn.text
            transcript.ended = Outcome.LENGTH if turn.finish_reason == "length" else Outcome.FINISHED
            if turn.tool_calls:
                messages += [turn.message, *await self._call_all(episode, names, turn.tool_calls, transcript)]
                continue
            if not talks:
                transcript.answer = turn.text
                return  # the grade call hands it over: every environment knows that one
            further = await episode.turn(turn.text)
            if further is None:
                return
            transcript.notes.told(further)
            messages += [turn.message, *further]
        transcript.ended = Outcome.MAX_TURNS

    async def _call_all(
        self, episode: Episode, names: ToolNames, calls: Sequence[ToolCall], transcript: Transcript
    ) -> list[Message]:
        """Call the tools at once; their results in the order of the calls."""
        results: dict[int, ToolResult] = {}
        failures: list[EnvironmentFailed] = []

        async def one(index: int, call: ToolCall) -> None:
            since = anyio.current_time()
            try:
                results[index] = await self._call(episode, names, call)
            except EnvironmentFailed as failure:
                failures.append(failure)
            finally:
                transcript.notes.called(call.facts(), results.get(index), since=since)

        if len(calls) == 1:
            await one(0, calls[0])
        else:
            async with anyio.create_task_group() as together:
                for index, call in enumerate(calls):
                    together.start_soon(one, index, call)
        if failures:
            raise failures[0]
        return [
            message
            for index, call in enumerate(calls)
            for message in result_messages(call.id, results[index])
        ]

    async def _call(self, episode: Episode, names: ToolNames, call: ToolCall) -> ToolResult:
        name = names.original(call.name)
        if name is None:
            return ToolResult.error(f"there is no tool {call.name!r}; there are: {', '.join(names.known)}")
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError as error:
            return ToolResult.error(f"the arguments of {call.name} are not JSON: {error}")
        if not isinstance(arguments, dict):
            return ToolResult.error(f"the arguments of {call.name} must be a JSON object")
        with anyio.move_on_after(self._tool_timeout_s) as patience:
            return await episode.call_tool(name, arguments)
        assert patience.cancelled_caught
        return ToolResult.error(f"{call.name} did not answer in {self._tool_timeout_s:g} s")
