"""A run whose environments misbehave all the time still takes its steps."""

from __future__ import annotations

from tests.e2e.conftest import Runner, processes_of

CRUEL = """
import asyncio, os, sys, time
from hud_orchestrator import Environment

env = Environment("arithmetic")


async def hang():
    await asyncio.sleep(10**6)


async def block():
    time.sleep(10**6)


async def leave():
    os._exit(3)


async def fail():
    raise RuntimeError("the disk is gone")


async def half():
    os.write(int(sys.argv[2]), b'{"jsonrpc":')
    os._exit(0)


async def garbage():
    os.write(int(sys.argv[2]), b"[[[\\n")
    await asyncio.sleep(10**6)


PLACES = ("start", "grade", "teardown")
MISDEEDS = (leave, fail, half, garbage, block, hang)


def turn_of_the_wheel():
    "Every fifth episode misbehaves, each in another way than the one before."
    with open("episodes", "ab") as file:
        file.write(b".")
        number = file.tell()
    if number % 5:
        return None, None
    return PLACES[number // 5 % 3], MISDEEDS[number // 5 % 6 - number // 15 % 2]


@env.template()
async def add(a: int, b: int):
    place, misdeed = turn_of_the_wheel()
    try:
        if place == "start":
            await misdeed()
        answer = yield f"{a}+{b}="
        if place == "grade":
            await misdeed()
        yield float(len(answer or "") % 3) + (answer or "").count("1")
    finally:
        if place == "teardown":
            await misdeed()


train = [add(a=a, b=b) for a in range(10, 50) for b in range(8)]
"""


def test_a_run_whose_environments_misbehave_all_the_time_takes_its_steps(remote_run: Runner) -> None:
    remote_run.write(
        tasks=CRUEL,
        run={"steps": 2},
        taskset={"heldout": None},
        runtime={"teardown_s": 1},
        rollout={
            "group_size": 4, "groups_per_step": 2, "concurrency": 8,
            "deadline_s": 9, "grading_reserve_s": 2, "start_s": 6, "infrastructure_retries": 1,
            "outcomes": {
                "environment_not_started": "drop_member", "grader_failed": "drop_member",
                "ungraded": "zero_advantage",
            },
        },
    )  # fmt: skip
    done = remote_run.run(timeout=240)

    assert done.returncode == 0, done.stderr
    assert remote_run.summary()["steps"] == 2
    assert remote_run.query("SELECT DISTINCT count(*) FROM rollouts GROUP BY group_number") == [(4,)]
    outcomes = dict(remote_run.query("SELECT outcome, count(*) FROM rollouts GROUP BY outcome"))
    assert {"finished", "environment_not_started"} <= outcomes.keys()
    assert remote_run.query(
        "SELECT count(*) FROM rollouts WHERE outcome = 'finished' AND reward IS NULL"
    ) == [(0,)]
    assert remote_run.query("SELECT count(*) FROM rollouts WHERE seconds > 2 * (9 + 1 + 6)") == [(0,)]
    assert processes_of(remote_run.directory) == []
