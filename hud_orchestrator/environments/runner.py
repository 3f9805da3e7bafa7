"""Drive one template's generator through an episode. Standard library only."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator
from functools import cache
from types import SimpleNamespace
from typing import Any

from hud_orchestrator.environments.frames import NotAFrame, grade_frame, is_grade, prompt_frame
from hud_orchestrator.environments.template import EPISODE, Environment

LAST_TURNS = 100
"""Answers of ``None`` that a template gets before it is taken for one that never grades."""


class TaskMistake(Exception):
    """The task names arguments that its template does not take, or is in no state for this."""


class UnknownTemplate(TaskMistake):
    """The task names a template that the environment does not have."""


class Runner:
    """One episode: ``start`` gives a prompt, ``turn`` a prompt or the grade, ``grade`` the grade."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._generator: AsyncGenerator[Any, Any] | None = None
        self._graded: AsyncGenerator[Any, Any] | None = None
        """A template that gave its grade, and may have something to put away."""
        self._grade: dict[str, Any] | None = None
        self._state = SimpleNamespace()

    async def start(self, template: str, args: dict[str, Any]) -> dict[str, Any]:
        """Run the template to its first prompt.

        Raises:
            UnknownTemplate: there is no such template.
            TaskMistake: it does not take these arguments.
            NotAFrame: it yielded no prompt.
        """
        await self.close()
        self._grade = None
        known = self._environment.templates
        if template not in known:
            raise UnknownTemplate(
                f"environment {self._environment.name!r} has no template {template!r}; it has {sorted(known)}"
            )
        function = known[template].function
        try:
            _signature(function).bind(**args)
        except TypeError as error:
            raise TaskMistake(f"template {template!r}: {error}") from None
        self._state = SimpleNamespace()
        EPISODE.set(self._state)
        self._generator = function(**args)
        try:
            frame = prompt_frame(await anext(self._generator))
        except StopAsyncIteration:
            raise NotAFrame(f"template {template!r} ended without a prompt") from None
        return {**frame, "tools": self._tools()} if self._environment.tools else frame

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool of the environment; what it raises is for the agent to read.

        Raises:
            TaskMistake: no task is in progress.
        """
        self._running()
        EPISODE.set(self._state)
        tool = self._environment.tools.get(name)
        if tool is None:
            return _error(f"there is no tool {name!r}; there are: {sorted(self._environment.tools)}")
        try:
            _signature(tool.function).bind(**arguments)
            answer = tool.function(**arguments)
            answer = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            return _error(f"{type(error).__name__}: {error}")
        return {"content": _parts(answer), "isError": False}

    def _tools(self) -> list[dict[str, Any]]:
        return [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in self._environment.tools.values()
        ]

    async def turn(self, answer: Any) -> dict[str, Any]:
        """Hand over an answer; the next prompt's frame, or the grade's, which has a ``score``."""
        generator = self._running()
        EPISODE.set(self._state)
        # A template that raised, or was interrupted, cannot be asked for anything more.
        self._generator = None
        try:
            value = await generator.asend(answer)
            self._generator = generator
        except StopAsyncIteration:
            value = 0.0
        if not is_grade(value):
            return prompt_frame(value)
        self._grade = grade_frame(value)
        return self._grade

    async def grade(self, answer: Any) -> dict[str, Any]:
        """The grade for *answer*, the agent's last word.

        The template is closed by :meth:`close`. One that asks for more turns gets ``None`` until it
        grades, at most once per prompt it still has to give.

        Raises:
            NotAFrame: what it yielded is no grade.
        """
        frame = self._grade or await self.turn(answer)
        asked = 0
        while "score" not in frame:
            asked += 1
            if asked > LAST_TURNS:
                raise NotAFrame(f"no grade after {LAST_TURNS} answers of None, which ask for it")
            await asyncio.sleep(0)  # a template that never suspends must not hold the loop
            frame = await self.turn(None)
        # Not closed here: a template that hangs while it puts its things away has graded all the same.
        self._graded, self._generator, self._grade = self._generator, None, None
        return frame

    async def close(self) -> None:
        """End the episode; running ``finally`` blocks of the template."""
        generator = self._generator or self._graded
        self._generator = self._graded = None
        if generator is not None:
            EPISODE.set(self._state)
            await generator.aclose()

    def _running(self) -> AsyncGenerator[Any, Any]:
        if self._generator is None:
            raise TaskMistake("no task in progress")
        return self._generator


# Reading one takes longer than the rest of a short episode.
_signature = cache(inspect.signature)


def _parts(answer: Any) -> list[dict[str, Any]]:
    """What a tool returned, as content parts: text as it is, parts as they are, the rest as JSON."""
    if answer is None:
        return []
    if isinstance(answer, list) and all(isinstance(part, dict) and "type" in part for part in answer):
        return answer
    text = answer if isinstance(answer, str) else json.dumps(answer, default=str)
    return [{"type": "text", "text": text}]


def _error(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": True}
