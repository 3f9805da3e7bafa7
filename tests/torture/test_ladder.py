"""The clocks of an attempt and of a group. Time itself is tested here, so deadlines are short and real."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.agents.own import OwnAgent
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.ladder import Limits
from hud_orchestrator.records import Outcome, Phase, Rollout, Task, Ticket
from tests.torture.world import attempt_all, attempter

SOURCE = '''
import anyio
from hud_orchestrator import Environment

env = Environment("calm")
begun = []

@env.template()
async def idle():
    """The agent acts until it is cut short."""
    yield "gateway hangs"
    yield 0.5

@env.template()
async def second_try():
    """Hangs at its first start, and needs a while at its second."""
    begun.append(1)
    await anyio.sleep(10**6 if len(begun) == 1 else 1.5)
    yield "go"
    yield 1.0

@env.template()
async def never():
    raise RuntimeError("no luck")
    yield
'''


@pytest.fixture
def calm(tmp_path: Path) -> InProcess:
    (tmp_path / "calm.py").write_text(SOURCE)
    return InProcess(tmp_path / "calm.py", teardown_s=1)


def ticket(
    template: str, member: int = 0, *, members: int = 1, agent_timeout_s: float | None = None
) -> Ticket:
    task = Task(env="calm", id=template, args={}, slug=template, agent_timeout_s=agent_timeout_s)
    return Ticket(group=0, member=member, task=task, members=members)


async def attempted(calm: InProcess, limits: Limits, *tickets: Ticket, concurrency: int = 8) -> list[Rollout]:
    with anyio.fail_after(20):
        async with attempter(calm, limits, concurrency=concurrency) as attempts:
            return await attempt_all(attempts, tickets)


async def test_a_task_may_give_its_agent_less_time_than_the_run_file(calm: InProcess) -> None:
    limits = Limits(deadline_s=10, grading_reserve_s=1, infrastructure_retries=0)

    (done,) = await attempted(calm, limits, ticket("idle", agent_timeout_s=0.2))

    assert (done.outcome, done.reward) == (Outcome.CUT_SHORT, 0.5)
    assert 0.2 <= done.phases[Phase.ACT] < 5
    assert "after 0.2 s" in str(done.detail)


async def test_an_agent_that_is_cut_short_leaves_the_reserve_to_the_grader(calm: InProcess) -> None:
    limits = Limits(deadline_s=3, grading_reserve_s=2, infrastructure_retries=0)

    (done,) = await attempted(calm, limits, ticket("idle", agent_timeout_s=60))

    assert (done.outcome, done.reward) == (Outcome.CUT_SHORT, 0.5)
    assert 0.3 <= done.phases[Phase.ACT] <= 1.7


async def test_an_environment_that_hung_at_its_start_is_tried_again_with_a_whole_ladder(
    calm: InProcess,
) -> None:
    limits = Limits(deadline_s=3, grading_reserve_s=0.2, start_s=2, infrastructure_retries=1, group_s=20)

    (done,) = await attempted(calm, limits, ticket("second_try"))

    assert (done.outcome, done.attempts, done.reward) == (Outcome.FINISHED, 2, 1.0)
    assert done.phases[Phase.START] > limits.deadline_s  # of both attempts, more than one ladder has


async def test_no_attempt_is_made_again_past_the_groups_time(calm: InProcess) -> None:
    limits = Limits(deadline_s=5, grading_reserve_s=0.5, infrastructure_retries=99, group_s=3)

    (done,) = await attempted(calm, limits, ticket("never"))

    # It fails at once, so what comes in between is the backoff: 0.5, 1, and no longer 2 seconds.
    assert (done.outcome, done.attempts) == (Outcome.NOT_STARTED, 3)


async def test_at_the_end_of_a_groups_time_members_are_cut_short_and_graded_or_do_not_begin(
    calm: InProcess,
) -> None:
    limits = Limits(deadline_s=4, grading_reserve_s=0.5, infrastructure_retries=0, group_s=4.5)
    members = [ticket("idle", member, members=4) for member in range(4)]

    done = await attempted(calm, limits, *members, concurrency=1)

    assert [one.outcome for one in done] == [
        Outcome.CUT_SHORT, Outcome.CUT_SHORT, Outcome.NOT_BEGUN, Outcome.NOT_BEGUN
    ]  # fmt: skip
    assert [one.reward for one in done] == [0.5, 0.5, None, None]
    assert done[1].phases[Phase.ACT] <= 1 < 3.2 <= done[0].phases[Phase.ACT]
    assert "4.5 s of its group" in str(done[3].detail)


async def test_a_groups_clock_is_its_own(calm: InProcess) -> None:
    limits = Limits(deadline_s=1, grading_reserve_s=0.5, infrastructure_retries=0, group_s=1.2)
    tickets = [Ticket(group=n, member=0, task=ticket("idle").task) for n in range(4)]

    done = await attempted(calm, limits, *tickets, concurrency=1)

    assert [one.outcome for one in done] == [Outcome.CUT_SHORT] * 4


async def test_a_cancellation_from_outside_is_passed_on_and_reported(calm: InProcess) -> None:
    heard: list[Rollout] = []

    class Witness:
        def began(self, ticket: Ticket, *, trace_id: str) -> None:
            """Nothing."""

        def ended(self, rollout: Rollout) -> None:
            heard.append(rollout)

    limits = Limits(deadline_s=60, grading_reserve_s=1, infrastructure_retries=5)
    with anyio.fail_after(20):
        async with attempter(calm, limits, witness=Witness()) as attempts:
            with anyio.move_on_after(0.3) as outside:
                await attempts.attempt(ticket("idle"), temperature=1)

    assert outside.cancelled_caught
    assert [one.outcome for one in heard] == [Outcome.CANCELLED]


class Leaving:
    async def act(self, episode: object, policy: object) -> str:
        raise SystemExit(0)


class Cancelled:
    async def act(self, episode: object, policy: object) -> str:
        work = asyncio.create_task(asyncio.sleep(60))
        work.cancel()
        await work
        return "never"


class Grouped:
    async def act(self, episode: object, policy: object) -> str:
        raise BaseExceptionGroup("of two", [SystemExit(1), ValueError("x")])


@pytest.mark.parametrize("agent", [Leaving, Cancelled, Grouped])
async def test_an_agent_that_exits_or_cancels_itself_is_an_outcome_and_no_silent_end_of_its_worker(
    calm: InProcess, agent: type
) -> None:
    limits = Limits(deadline_s=10, grading_reserve_s=1, infrastructure_retries=0)
    with anyio.fail_after(20):
        async with attempter(calm, limits, agent=OwnAgent(agent)) as attempts:
            done = await attempts.attempt(ticket("idle"), temperature=1)

    assert (done.outcome, done.phase, done.reward) == (Outcome.AGENT_ERROR, Phase.ACT, 0.5)
