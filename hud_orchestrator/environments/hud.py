"""Placements that HUD's SDK provides. The one module that imports it.

A provider of the SDK starts an environment somewhere and says at which ``tcp://`` address it is reached; what
is said there is the control protocol, and our own client says it. So the SDK is asked for machines only:
agents, prompts, grades and clocks are the same as everywhere else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from hud_orchestrator.environments.control import ControlEpisode
from hud_orchestrator.environments.guests import Guests
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.served import served_episode, tcp_dial
from hud_orchestrator.errors import ConfigError, EnvironmentFailed
from hud_orchestrator.records import Task

Provider = Literal["DaytonaRuntime", "DockerRuntime", "HUDRuntime", "ModalRuntime", "SubprocessRuntime"]


class Provided:
    """Runs every episode on a machine that a provider of the SDK finds. Use as an async context manager."""

    def __init__(self, provider: Provider, options: Mapping[str, Any], *, pace: Pace) -> None:
        """Ask the SDK's class *provider*, made with *options*.

        Raises:
            ConfigError: the SDK is not installed, or the class does not take the options.
        """
        try:
            runtimes, self._tasks = import_module("hud.eval.runtime"), import_module("hud.eval.task")
            self._traces = import_module("hud.telemetry.context")
        except ImportError as error:
            raise ConfigError(
                f"the placement needs HUD's SDK ({error}); "
                "install it with: pip install 'hud-orchestrator[hud]'"
            ) from error
        try:
            self._provide = getattr(runtimes, provider)(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"runtime.options: {provider} does not take them: {error}") from error
        self._named = provider
        self._pace = pace
        self._guests = Guests()

    async def __aenter__(self) -> Self:
        await self._guests.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._guests.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def episode(
        self, task: Task, *, trace_id: str | None = None
    ) -> AsyncGenerator[ControlEpisode, None]:
        """Begin *task* on a new machine; leaving gives the machine back."""
        named = f"{self._named} for task {task.slug!r}"
        async with self._guests.held(
            self._placed(task, trace_id), named=named, leave_s=self._pace.teardown_s
        ) as runtime:
            ready_s = runtime.params.get("ready_timeout", self._pace.ready_s)
            async with served_episode(
                tcp_dial(*_address(runtime.url)),
                task,
                named=named,
                pace=replace(self._pace, ready_s=ready_s),
                trace_id=trace_id,
            ) as episode:
                yield episode

    @asynccontextmanager
    async def _placed(self, task: Task, trace_id: str | None) -> AsyncGenerator[Any, None]:
        row = {"env": task.env, "id": task.id, "args": dict(task.args), "slug": task.slug}
        if task.runtime_config is not None:
            row["runtime_config"] = dict(task.runtime_config)
        if task.agent_timeout_s is not None:
            row["agent_config"] = {"timeout_seconds": task.agent_timeout_s}
        # Where the SDK finds the trace that a machine is for; a guest's task has a context of its own.
        with self._traces.set_trace_context(trace_id) if trace_id else nullcontext():
            async with self._provide(self._tasks.Task.model_validate(row)) as runtime:
                yield runtime


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "tcp" or not parts.hostname or not parts.port:
        raise EnvironmentFailed(f"the environment is at {url!r}, and only tcp://host:port is spoken")
    return parts.hostname, parts.port
