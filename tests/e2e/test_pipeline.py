"""What the pipeline does with staleness, deadlines and failures."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import TASKS, Runner

HANG = '''
import time, anyio

@env.template()
async def sleeps():
    yield "11+1="
    await anyio.sleep_forever()
    yield 1.0

@env.template()
async def spins():
    yield "11+1="
    while True:
        pass

@env.template()
async def never_starts():
    time.sleep(10**6)
    yield "11+1="

@env.template()
async def dies():
    yield "11+1="
    import os
    os._exit(3)

@env.template()
async def raises():
    yield "11+1="
    raise RuntimeError("the grader has a bug")
'''  # fmt: skip

TALK = '''
from hud_orchestrator import Environment
import asyncio
env = Environment("talk")

@env.template()
async def talk():
    """A point for each of four turns; the third one takes the environment seconds."""
    points = 0
    for turn in range(4):
        answer = yield f"1{turn}+{turn}="
        if answer is None:
            break
        points += 1
        if turn == 2:
            await asyncio.sleep(3)
    yield {"score": points / 4, "info": {"points": points}}

train = [talk()]
'''


def test_sync_trains_on_the_newest_policy_alone(remote_run: Runner) -> None:
    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    assert [line["staleness_max"] for line in remote_run.metrics()] == [0, 0, 0]


def test_async_samples_ahead_and_never_further_than_its_bound(remote_run: Runner) -> None:
    remote_run.write(
        run={"steps": 6}, pipeline={"staleness": 1}, trainer={"loss": "ppo"}, rollout={"concurrency": 16}
    )
    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    ages = [line["staleness_max"] for line in remote_run.metrics()]
    assert max(ages) == 1
    spread = remote_run.query(
        "SELECT max(g.step - 1 - r.version_min) FROM groups g JOIN rollouts r ON r.group_number = g.number"
        " WHERE g.ending = 'trained'"
    )
    assert spread == [(1,)]


@pytest.mark.parametrize(
    ("template", "outcome", "phase"),
    [
        ("sleeps", "grader_failed", "grade"),
        ("spins", "grader_failed", "grade"),
        ("never_starts", "environment_not_started", "start"),
        ("dies", "environment_lost", "grade"),
        ("raises", "grader_failed", "grade"),
    ],
)
def test_a_broken_environment_costs_its_group_and_the_run_goes_on(
    remote_run: Runner, template: str, outcome: str, phase: str
) -> None:
    mixed = f"{TASKS}{HANG}\ntrain = [train[0], {template}(), *train[1:40]]\n"
    remote_run.write(
        tasks=mixed,
        taskset={"shuffle": False, "heldout": None},
        rollout={"deadline_s": 6, "grading_reserve_s": 1, "infrastructure_retries": 0, "concurrency": 4},
    )
    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    assert remote_run.query("SELECT ending FROM groups WHERE number = 1") == [("failed",)]
    rows = remote_run.query("SELECT outcome, phase, reward, seconds FROM rollouts WHERE group_number = 1")
    assert [row[:3] for row in rows] == [(outcome, phase, None)] * 4
    # Deadline, teardown, and a machine that may be busy; what hangs does so for days.
    assert all(seconds < 6 + 2 + 20 for *_, seconds in rows)
    assert all(line["groups_trained"] > 0 for line in remote_run.metrics())


@pytest.mark.parametrize(("policy", "ending"), [("keep", "no_spread"), ("drop_group", "partial")])
def test_what_a_cut_short_agent_did_is_graded_and_trains_by_policy(
    remote_run: Runner, policy: str, ending: str
) -> None:
    remote_run.write(
        tasks=TALK,
        run={"steps": 1},
        taskset={"heldout": None},
        agent={"max_turns": 4, "max_tokens": 2},
        rollout={
            "group_size": 2, "groups_per_step": 1, "concurrency": 2, "deadline_s": 8, "grading_reserve_s": 6,
            "outcomes": {"cut_short": policy},
        },
        pipeline={"replacements_per_step": 0},
    )  # fmt: skip
    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    rows = remote_run.query("SELECT outcome, reward, grade FROM rollouts")
    assert [(outcome, reward) for outcome, reward, _ in rows] == [("cut_short", 0.75)] * 2
    assert json.loads(rows[0][2])["info"] == {"points": 3}
    assert remote_run.query("SELECT ending FROM groups") == [(ending,)]
    assert remote_run.summary()["rollouts"] == {"cut_short": 2}
