"""Agents of somebody's own, by ``package.module:Class``."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from hud_orchestrator.agents.protocol import Episode, Message, Policy, Transcript, Turn
from hud_orchestrator.errors import ConfigError, OrchestratorError
from hud_orchestrator.foreign import raised_by_itself
from hud_orchestrator.toolbox import ToolResult, ToolSpec


class AgentRaised(Exception):
    """Code of an agent of somebody's own raised."""


class OwnAgent:
    """A new object of the class for every episode, so that episodes share nothing by accident."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    async def act(self, episode: Episode, policy: Policy, transcript: Transcript) -> None:
        """Let it act; what it returns is its answer.

        Raises:
            AgentRaised: it did.
        """
        try:
            answer = await self._make().act(_Noted(episode, transcript), _Noting(policy, transcript))
        except OrchestratorError:
            raise  # of the gateway or the environment: not the agent's fault
        except BaseException as error:
            if not raised_by_itself(error):
                raise
            raise AgentRaised(f"{type(error).__name__}: {error}") from error
        transcript.answer = answer if answer is None else str(answer)


class _Noting:
    """The policy, noting what it is told and what was said last."""

    def __init__(self, policy: Policy, transcript: Transcript) -> None:
        self._policy = policy
        self._transcript = transcript
        self._known: list[Message] = []

    async def sample(self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = ()) -> Turn:
        """Sample the next turn."""
        # Results of tools are noted with their calls.
        new = [one for one in messages if one.get("role") != "tool" and one not in self._known]
        self._known += new
        if new:
            self._transcript.notes.told(new)
        turn = await self._policy.sample(messages, tools=tools)
        self._known += [turn.message, {"role": "assistant", "content": turn.text}]
        self._transcript.text = turn.text
        return turn


class _Noted:
    """The episode, with a note of every call of a tool."""

    def __init__(self, episode: Episode, transcript: Transcript) -> None:
        self._episode = episode
        self._notes = transcript.notes
        self._calls = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        # An environment of ours may offer its agents more than every episode has.
        return getattr(self._episode, name)

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one of the episode's tools."""
        since, result = anyio.current_time(), None
        call = {"id": str(next(self._calls)), "name": name, "arguments": json.dumps(arguments, default=str)}
        try:
            result = await self._episode.call_tool(name, arguments)
        finally:
            self._notes.called(call, result, since=since)
        return result


def load_agent(path: str, options: Mapping[str, Any]) -> OwnAgent:
    """The agent class that *path* names, made with *options*.

    Raises:
        ConfigError: there is no such class, it takes other options, or it has no ``act``.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"agent.use: {path!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not inspect.isclass(found):
        raise ConfigError(f"agent.use: {module_name} has no class {attribute!r}")
    if not inspect.iscoroutinefunction(getattr(found, "act", None)):
        raise ConfigError(f"agent.use: {path} has no async method act(episode, policy)")
    try:
        found(**options)
    except Exception as error:
        raise ConfigError(f"agent.options: {path}: {type(error).__name__}: {error}") from error
    return OwnAgent(lambda: found(**options))
