"""Rollouts for scripts and notebooks: attempts at tasks, in groups that a training call takes.

    async with Rollouts("tasks.py:train", model="my-model", max_tokens=64) as rollouts:
        batch = await rollouts.groups(rollouts.pick(16), group_size=8)

The daemon has stages for this, with a store behind them; here nothing is kept.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
from pydantic import SecretStr

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.attempt import Attempter
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.placement import FROM_SOURCE
from hud_orchestrator.config.sources import named_source
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.places import opened
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.ladder import Limits
from hud_orchestrator.logs import get_logger
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Policy, Rollout, Task, Ticket
from hud_orchestrator.settings import Settings
from hud_orchestrator.tasksets.load import from_here, load, load_here

log = get_logger()


@dataclass
class Rollouts:
    """Attempts of one model at the tasks of one taskset. Use as an async context manager.

    Raises:
        ConfigError: there are no tasks, there is no key, or a value cannot be used.
    """

    source: str | Path
    """``tasks.py``, ``tasks.py:train`` for one of its lists of tasks, a ``.json`` or ``.jsonl`` file, a
    directory, or a taskset of the platform by its name or id."""
    _: KW_ONLY
    environment: str | Path | None = None
    """The ``.py`` file that defines the environments. Left out: the source, which is one then."""
    placement: str = "local"
    """Where they run: ``local``, ``in-process``, ``subprocess`` or ``tcp://host:port``, as in a run file."""
    model: str
    """The slug that is sampled."""
    system_prompt: str | None = None
    """First message of every conversation."""
    max_tokens: int = 256
    """Sampled per turn at most."""
    max_turns: int = 10
    """Model turns per attempt at most."""
    temperature: float = 1.0
    """1 samples the policy that is trained."""
    top_p: float = 1.0
    """1 samples the policy that is trained."""
    stop: Sequence[str] = ()
    """Strings that end a turn."""
    tool_choice: str = "auto"
    """Whether turns call tools: ``auto``, ``required``, ``none``, or the name of the tool to call."""
    parallel_tool_calls: bool = True
    """Whether one turn may make several calls."""
    deadline_s: float = 600
    """Seconds for one attempt, from its start to its grade."""
    grading_reserve_s: float = 60
    """Seconds of those that are kept for the grader."""
    infrastructure_retries: int = 2
    """Further tries of an attempt that failed for no fault of the model."""
    concurrency: int = 32
    """Attempts in flight, at most."""
    seed: int = 0
    """Of the sampling, and of :meth:`pick`."""
    api_key: str | SecretStr | None = field(default=None, repr=False)
    """Left out: ``HUD_API_KEY``."""
    gateway_url: str | None = None
    """Left out: ``HUD_GATEWAY_URL``."""
    tasks: tuple[Task, ...] = field(init=False, default=())
    """The tasks, in their order; those of the platform are there inside the context."""

    def __post_init__(self) -> None:
        if self.grading_reserve_s >= self.deadline_s:
            raise ConfigError(
                f"grading_reserve_s ({self.grading_reserve_s:g}) must be less than deadline_s "
                f"({self.deadline_s:g})"
            )
        named = named_source(str(self.source), from_here)
        environment = self.environment or (named.name if named.is_module else None)
        if environment is None and self.placement in FROM_SOURCE:
            raise ConfigError(f"{self.source}: holds tasks only; name the .py file of their environments")
        self._file = None if environment is None else from_here(str(environment))
        if named.is_path:
            self.tasks = load_here(named, from_here)
        given = {"api_key": self.api_key, "gateway_url": self.gateway_url}
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        if settings.api_key is None:
            raise ConfigError("there is no API key: set HUD_API_KEY, or give api_key")
        self._key, self._url = settings.api_key, settings.gateway_url
        self._numbers = itertools.count()
        self._random = random.Random(self.seed)  # noqa: S311  (chooses tasks, not secrets)
        self._stack = AsyncExitStack()
        self._attempter: Attempter | None = None

    async def __aenter__(self) -> Self:
        self.tasks = self.tasks or await load(self.source)
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(
                Transport(self._url, self._key, connections=self.concurrency + 10)
            )
            log_file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            place = await stack.enter_async_context(
                opened(self.placement, source=self._file, log_file=log_file, pace=Pace())
            )
            self._attempter = Attempter(
                placement=place,
                agent=ChatAgent(system_prompt=self.system_prompt, max_turns=self.max_turns),
                gateway=PacedGateway(Gateway(transport, model=self.model), most=self.concurrency),
                policy=PolicyCell(Policy(version=0, checkpoint=None)),
                sampling=Sampling(
                    top_p=self.top_p,
                    max_tokens=self.max_tokens,
                    stop=self.stop,
                    seed=self.seed,
                    tool_choice=self.tool_choice,
                    parallel_tool_calls=self.parallel_tool_calls,
                ),
                limits=Limits(
                    deadline_s=self.deadline_s,
                    grading_reserve_s=self.grading_reserve_s,
                    infrastructure_retries=self.infrastructure_retries,
                ),
                dispatch=Dispatch(concurrency=self.concurrency),
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._attempter = None
        await self._stack.aclose()

    def pick(self, count: int) -> list[Task]:
        """*count* tasks at random, different ones while there are enough."""
        if count <= len(self.tasks):
            return self._random.sample(self.tasks, count)
        return self._random.choices(self.tasks, k=count)

    async def attempt(self, tasks: Sequence[Task], *, group_size: int = 1) -> list[Rollout]:
        """Attempt every task *group_size* times, and return all attempts, whatever became of them.

        Returns:
            ``len(tasks) * group_size`` rollouts; the attempts at one task are next to each other.
        """
        if self._attempter is None:
            raise RuntimeError("use Rollouts as an async context manager")
        tickets = [
            Ticket(group=number, member=member, task=task, members=group_size)
            for number, task in zip(self._numbers, tasks, strict=False)
            for member in range(group_size)
        ]
        done: dict[int, Rollout] = {}

        async def one(index: int, attempter: Attempter) -> None:
            done[index] = await attempter.attempt(tickets[index], temperature=self.temperature)

        async with anyio.create_task_group() as crew:
            for index in range(len(tickets)):
                crew.start_soon(one, index, self._attempter)
        return [done[index] for index in range(len(tickets))]

    async def groups(self, tasks: Sequence[Task], *, group_size: int) -> list[Rollout]:
        """Attempt every task *group_size* times, and return the groups that a policy learns from.

        A group is left out, and logged, when a member was not graded, failed or was cut short, or when all
        rewards are equal.

        Returns:
            Whole groups, next to each other, for a training call with this ``group_size``.
        """
        rollouts = await self.attempt(tasks, group_size=group_size)
        kept: list[Rollout] = []
        for start in range(0, len(rollouts), group_size):
            group = rollouts[start : start + group_size]
            objection = _objection(group)
            if objection is None:
                kept += group
            else:
                log.info("group.dropped", group=group[0].ticket.group, reason=objection)
        return kept


def _objection(group: Sequence[Rollout]) -> str | None:
    for rollout in group:
        if rollout.reward is None or not rollout.outcome.clean:
            return rollout.detail or rollout.outcome.value
    rewards = [rollout.reward for rollout in group]
    return "every member has the same reward" if len(set(rewards)) == 1 else None
