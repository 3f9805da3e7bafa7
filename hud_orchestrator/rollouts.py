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
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
from pydantic import SecretStr

from hud_orchestrator.attempt import Attempter, Limits, Sampling
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.file_checks import split_taskset
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.tasksets import load_taskset
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import Outcome, Policy, Rollout, Task, Ticket
from hud_orchestrator.settings import Settings

log = get_logger()


class Rollouts:
    """Attempts of one model at the tasks of one file. Use as an async context manager.

    Args:
        source: ``tasks.py``, or ``tasks.py:train`` for one of its lists of tasks.
        model: the slug that is sampled.
        system_prompt: first message of every conversation.
        max_tokens: sampled per turn at most.
        max_turns: model turns per attempt at most.
        temperature: 1 samples the policy that is trained.
        top_p: 1 samples the policy that is trained.
        stop: strings that end a turn.
        deadline_s: seconds for one attempt, from its start to its grade.
        grading_reserve_s: seconds of those that are kept for the grader.
        infrastructure_retries: further tries of an attempt that failed for no fault of the model.
        concurrency: attempts in flight, at most.
        seed: of the sampling.
        api_key: left out: ``HUD_API_KEY``.
        gateway_url: left out: ``HUD_GATEWAY_URL``.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        model: str,
        system_prompt: str | None = None,
        max_tokens: int = 256,
        max_turns: int = 10,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        deadline_s: float = 600,
        grading_reserve_s: float = 60,
        infrastructure_retries: int = 2,
        concurrency: int = 32,
        seed: int = 0,
        api_key: str | SecretStr | None = None,
        gateway_url: str | None = None,
    ) -> None:
        """Attempt the tasks of *source* by *model*; the class says what the arguments mean.

        Raises:
            ConfigError: the file has no tasks, there is no key, or a value cannot be used.
        """
        file, name = split_taskset(str(source))
        self.tasks = load_taskset(Path(file), name=name)
        """The tasks, in the file's order."""
        self._source = Path(file)
        self._model = model
        self._temperature = temperature
        self._concurrency = concurrency
        self._sampling = Sampling(
            top_p=top_p,
            max_tokens=max_tokens,
            stop=stop,
            system_prompt=system_prompt,
            max_turns=max_turns,
            seed=seed,
        )
        self._limits = Limits(
            deadline_s=deadline_s,
            grading_reserve_s=grading_reserve_s,
            infrastructure_retries=infrastructure_retries,
        )
        if grading_reserve_s >= deadline_s:
            raise ConfigError(
                f"grading_reserve_s ({grading_reserve_s:g}) must be less than deadline_s ({deadline_s:g})"
            )
        given = {"api_key": api_key, "gateway_url": gateway_url}
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        if settings.api_key is None:
            raise ConfigError("there is no API key: set HUD_API_KEY, or give api_key")
        self._key, self._gateway_url = settings.api_key, settings.gateway_url
        self._numbers = itertools.count()
        self._random = random.Random(seed)  # noqa: S311  (chooses tasks, not secrets)
        self._stack = AsyncExitStack()
        self._attempter: Attempter | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(
                Transport(self._gateway_url, self._key, connections=self._concurrency + 10)
            )
            log_file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            pool = await stack.enter_async_context(
                ProcessPool(self._source, log_file=log_file, recycle_after=5000, teardown_s=2)
            )
            self._attempter = Attempter(
                placement=pool,
                gateway=Gateway(transport, model=self._model),
                policy=PolicyCell(Policy(version=0, checkpoint=None)),
                sampling=self._sampling,
                limits=self._limits,
                concurrency=self._concurrency,
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
            Ticket(group=number, member=member, task=task)
            for number, task in zip(self._numbers, tasks, strict=False)
            for member in range(group_size)
        ]
        done: dict[int, Rollout] = {}

        async def one(index: int, attempter: Attempter) -> None:
            done[index] = await attempter.attempt(tickets[index], temperature=self._temperature)

        async with anyio.create_task_group() as crew:
            for index in range(len(tickets)):
                crew.start_soon(one, index, self._attempter)
        return [done[index] for index in range(len(tickets))]

    async def groups(self, tasks: Sequence[Task], *, group_size: int) -> list[Rollout]:
        """Attempt every task *group_size* times, and return the groups that a policy learns from.

        A group is left out, and logged, when a member was not graded or was cut short, or when all
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
        if rollout.reward is None or rollout.outcome is Outcome.CUT_SHORT:
            return rollout.detail or rollout.outcome.value
    rewards = [rollout.reward for rollout in group]
    return "every member has the same reward" if len(set(rewards)) == 1 else None
