"""Tasks with a verifier: two grades, of which the verifier's counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.ladder import Limits
from hud_orchestrator.records import Outcome, Phase, Rollout, Task, Ticket
from tests.torture.world import attempter, pool

SOURCE = Path(__file__).with_name("verified.py")

LIMITS = Limits(deadline_s=30, grading_reserve_s=10, infrastructure_retries=0)


def task(env: str, template: str, how: str = "", *, verifier: Task | None = None) -> Task:
    return Task(env=env, id=template, args={"how": how}, slug=template, verifier=verifier)


async def attempted(tmp_path: Path, one: Task) -> Rollout:
    with anyio.fail_after(60):
        async with (
            pool(tmp_path / "log", SOURCE) as processes,
            attempter(processes, LIMITS, agent=ChatAgent(system_prompt=None, max_turns=1)) as attempts,
        ):
            return await attempts.attempt(Ticket(group=0, member=0, task=one), temperature=1)


async def test_a_verifier_of_the_same_environment_grades_on_the_same_connection(tmp_path: Path) -> None:
    done = await attempted(tmp_path, task("work", "write", verifier=task("work", "check")))

    assert (done.outcome, done.reward, done.grade and done.grade["score"]) == (Outcome.FINISHED, 1.0, 1.0)
    assert done.grade is not None
    assert done.grade["seen"] == done.grade["actor_grade"]
    assert done.grade["actor_grade"]["score"] == 0.25
    assert done.grade["pid"] == done.grade["actor_grade"]["pid"]
    assert done.grade["put_away"] == ["the desk"]  # before the verifier begins, as the SDK has it


@pytest.mark.parametrize(
    "verifier",
    [task("court", "judge"), replace(task("work", "check"), runtime_config={"image": "another"})],
    ids=["another environment", "another machine"],
)
async def test_any_other_verifier_has_an_episode_of_its_own(tmp_path: Path, verifier: Task) -> None:
    done = await attempted(tmp_path, task("work", "write", verifier=verifier))

    assert done.grade is not None
    assert done.reward == done.grade["score"] != 0.25
    assert done.grade["seen"] == done.grade["actor_grade"]
    assert {Phase.GRADE, Phase.TEARDOWN} <= done.phases.keys()


async def test_what_was_wrong_with_the_actors_grade_is_for_the_verifier_to_read(tmp_path: Path) -> None:
    done = await attempted(tmp_path, task("work", "write", "fail", verifier=task("court", "judge")))

    assert (done.outcome, done.reward) == (Outcome.FINISHED, 0.5)
    assert done.grade is not None
    assert (done.grade["seen"]["score"], done.grade["seen"]["isError"]) == (0.0, True)
    assert "no pencil" in done.grade["seen"]["content"]


@pytest.mark.parametrize(
    ("verifier", "words"),
    [
        (task("work", "check", "fail"), "no glasses"),
        (task("work", "unheard_of"), "the verifier did not start"),
        (task("court", "judge", "start"), "the court is closed"),
        (task("court", "judge", "exit"), "ended or closed"),
        (task("court", "judge", "error"), "the grader reports an error"),
    ],
)
async def test_a_verifier_that_fails_leaves_the_rollout_ungraded(
    tmp_path: Path, verifier: Task, words: str
) -> None:
    done = await attempted(tmp_path, task("work", "write", verifier=verifier))

    assert (done.outcome, done.phase, done.reward) == (Outcome.GRADER_FAILED, Phase.GRADE, None)
    assert words in str(done.detail)
