"""Measure the policy on held-out tasks, with the same attempts that training makes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import anyio

from hud_orchestrator.attempt import Attempts
from hud_orchestrator.dispatch import hopeless
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Outcome, Policy, Rollout, Task, Ticket
from hud_orchestrator.rules.statistics import clustered_mean
from hud_orchestrator.store.history import Evaluation, History

log = get_logger()


class Evaluator:
    """Attempts every held-out task and writes the mean down."""

    def __init__(
        self,
        *,
        attempter: Attempts,
        tasks: Sequence[Task],
        samples_per_task: int,
        temperature: float,
        history: History,
        board: Scoreboard,
    ) -> None:
        self._attempter = attempter
        self._tickets = [
            Ticket(group=group, member=member, task=task, purpose="eval", members=samples_per_task)
            for group, task in enumerate(tasks)
            for member in range(samples_per_task)
        ]
        self._temperature = temperature
        self._history = history
        self._board = board

    async def evaluate(self, policy: Policy) -> None:
        """Measure *policy*, which must stay the head meanwhile.

        A failure of infrastructure is not a low reward: the mean is over graded attempts.

        Raises:
            RunFailed, ServiceUnreachable: not one attempt was graded.
        """
        began = anyio.current_time()
        rollouts = await self._attempt_all(policy)
        graded = [r for r in rollouts if r.reward is not None]
        if not graded:
            away = (one for one in rollouts if one.outcome is Outcome.GATEWAY_FAILED)
            raise hopeless("no held-out attempt was graded", next(away, rollouts[-1]))
        by_task = _by_task(graded)
        estimate = clustered_mean(list(by_task.values()))
        assert estimate is not None  # something is graded
        evaluation = Evaluation(
            version=policy.version,
            checkpoint=policy.checkpoint,
            reward=estimate.mean,
            graded=len(graded),
            attempted=len(rollouts),
            seconds=anyio.current_time() - began,
            tasks={slug: fmean(rewards) for slug, rewards in by_task.items()},
        )
        await self._history.add_evaluation(evaluation)
        self._board.evaluations.append((evaluation.version, evaluation.reward))
        line = {
            "step": evaluation.version,
            "checkpoint": evaluation.checkpoint,
            "reward": evaluation.reward,
            "interval": estimate.interval,
            "graded": evaluation.graded,
            "attempted": evaluation.attempted,
            "seconds": round(evaluation.seconds, 3),
        }
        self._board.record({"kind": "evaluation", **line})
        log.info("evaluation.finished", **line)

    async def _attempt_all(self, policy: Policy) -> list[Rollout]:
        done: list[Rollout] = []

        async def one(ticket: Ticket) -> None:
            done.append(
                await self._attempter.attempt(ticket, temperature=self._temperature, version=policy.version)
            )
            self._board.evaluating = (len(done), len(self._tickets))

        self._board.evaluating = (0, len(self._tickets))
        try:
            async with anyio.create_task_group() as crew:
                for ticket in self._tickets:
                    crew.start_soon(one, ticket, name=f"eval-{ticket.group}-{ticket.member}")
        finally:
            self._board.evaluating = None
        return done


def _by_task(rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        assert rollout.reward is not None  # graded
        rewards[rollout.ticket.task.slug].append(rollout.reward)
    # Attempts end in any order, and no sum must depend on it.
    return {slug: sorted(values) for slug, values in sorted(rewards.items())}
