"""An environment of ``verifiers`` with our agent in its one seat."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from hud_orchestrator.adapters.adapted import library
from hud_orchestrator.adapters.verifiers.player import Player
from hud_orchestrator.adapters.verifiers.seat import Seat


class World:
    """A taskset, the environment that plays it, and what it asks of an agent.

    Raises:
        ValueError: there is no such taskset or environment, or it has several agents.
        ModuleNotFoundError: ``verifiers`` is not installed.
    """

    def __init__(self, taskset: str, environment: str, config: dict[str, Any]) -> None:
        self._vf = library("verifiers.v1", extra="verifiers")
        try:
            chosen = self._vf.resolve_env_config({"id": environment, "taskset": {**config, "id": taskset}})
            self._env = self._vf.load_environment(chosen)
        except (ModuleNotFoundError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"verifiers does not load {taskset!r}: {error}") from error
        self._seats = list(self._env._agent_specs)  # it has no public name
        if len(self._seats) != 1:
            raise ValueError(
                f"{taskset} has the agents {self._seats}; an environment with one agent can be trained here"
            )
        self._taskset = self._env.taskset

    @property
    def infinite(self) -> bool:
        """Whether its tasks never end."""
        return not self._taskset.bounded

    def tasks(self) -> Iterator[Any]:
        """The library's tasks."""
        return iter(self._taskset)

    def check(self, task: Any) -> None:
        """Refuse a task that needs more than a conversation in text.

        Raises:
            ValueError: it needs tools or a sandbox.
        """
        needs = []
        if type(task).toolsets(task.config) or self._taskset.toolsets(self._taskset.config):
            needs.append("tools")
        if task.NEEDS_CONTAINER or task.data.image or any(map(_needs_runtime, _scoring(task))):
            needs.append("a sandbox")
        if any(map(self._is_about_requests, task.hooks("stop"))):
            needs.append("a look at the requests")
        if needs:
            raise ValueError(
                f"task {task.data.idx} needs {' and '.join(needs)}, and gets a conversation alone"
            )

    def _is_about_requests(self, hook: Any) -> bool:
        return self._vf.session.hook_boundary(hook, allow_trace=True) is not self._vf.Trace

    async def play(self, data: dict[str, Any], seat: Seat) -> list[Any]:
        """Play one task; the scored traces of the agent in *seat*.

        Raises:
            ValueError: the environment asked the agent nothing.
        """
        kind = self._taskset.task_type()
        task = kind(kind.data_type().model_validate(data), self._taskset.config.task)
        self.check(task)
        agents = self._vf.Agents(self._env.config, lambda name, config: Player(self._vf, name, config, seat))
        await self._env.setup(agents)
        await self._env.run(task, agents)
        traces: list[Any] = getattr(agents, self._seats[0]).traces
        if not traces:
            raise ValueError(f"{type(self._env).__name__}.run asked the agent nothing")
        about = self._vf.TraceTask(type=kind.__name__, data=task.data, key=task.key, hash=task.hash)
        await self._env.finalize(task, self._vf.Episode(task=about, traces=traces, ok=True))
        return traces


def _scoring(task: Any) -> list[Any]:
    judges = [judge.score for judge in task.plugged_judges()]
    return [*task.hooks("reward"), *task.hooks("metric"), *judges]


def _needs_runtime(function: Any) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty
