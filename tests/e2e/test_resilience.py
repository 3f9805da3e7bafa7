"""Outages of a real run: it pauses, says why, burns few tasks, and goes on or ends as it is documented."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import TASKS, Runner, until_line
from tests.e2e.outage import Outage

BREAKS = TASKS.replace(
    "    answer = yield",
    """    if Path(__file__).with_name("broken").exists():
        raise RuntimeError("the sandbox is out of disk")
    answer = yield""",
).replace("from hud", "from pathlib import Path\nfrom hud", 1)

QUICK = {"least_attempts": 4, "pause_s": 0.3, "longest_pause_s": 0.5}


@pytest.fixture
def outage(served: dict[str, str]) -> Iterator[Outage]:
    gateway = Outage(served["HUD_GATEWAY_URL"])
    with gateway.serving():
        yield gateway


def ended(process: subprocess.Popen[str], *, within_s: float = 60) -> tuple[int, str]:
    text, _ = process.communicate(timeout=within_s)
    return process.returncode, text


def test_an_environment_that_breaks_for_a_while_costs_few_tasks_and_no_step(remote_run: Runner) -> None:
    remote_run.write(BREAKS, run={"steps": 4}, rollout={"infrastructure_retries": 0}, resilience=QUICK)
    broken = remote_run.directory / "broken"
    with remote_run.started() as process:
        until_line(process, "step.taken")
        broken.touch()
        for _ in range(3):
            line = until_line(process, "dispatch.paused")
        assert "the sandbox is out of disk" in line
        assert "environment 'arithmetic'" in line
        broken.unlink()
        until_line(process, "dispatch.resumed")
        code, text = ended(process)

    assert code == 0, text
    summary = remote_run.summary()
    assert summary["steps"] == 4
    # Those in flight when it broke are attempted anew; a probe that fails costs its own ticket at most.
    assert summary["rollouts"].get("environment_not_started", 0) <= 16
    changes = [line["change"] for line in remote_run.metrics("dispatch")]
    assert changes[-1] == "resumed"
    assert changes.count("paused") >= 3


def test_a_gateway_that_is_down_for_a_moment_costs_nothing(remote_run: Runner, outage: Outage) -> None:
    remote_run.write(run={"steps": 3}, rollout={"infrastructure_retries": 0})
    with remote_run.started(HUD_GATEWAY_URL=outage.url) as process:
        until_line(process, "step.taken")
        outage.away.set()
        assert outage.first_refused.wait(30)
        until_line(process, "gateway.paused")
        outage.away.clear()
        code, text = ended(process)

    assert code == 0, text
    assert set(remote_run.summary()["rollouts"]) <= {"finished", "length"}
    assert remote_run.events("gateway.resumed")
    assert all(line["gateway_window"] >= 1 for line in remote_run.metrics())


def test_a_gateway_that_stays_away_pauses_the_run_and_ends_it_with_its_own_code(
    remote_run: Runner, outage: Outage
) -> None:
    limits = {**QUICK, "gateway_patience_s": 0.5, "give_up_after_s": 3}
    remote_run.write(run={"steps": 50}, rollout={"infrastructure_retries": 0}, resilience=limits)
    with remote_run.started(HUD_GATEWAY_URL=outage.url) as process:
        until_line(process, "step.taken")
        outage.away.set()
        until_line(process, "dispatch.paused")
        code, text = ended(process)

    assert code == 69, text
    assert "the gateway: " in text
    assert "down for maintenance" in text
    # Eight seconds of a run that would not pause are hundreds of requests.
    assert outage.refused < 100


def test_an_environment_that_never_works_ends_the_run_soon_and_says_why(remote_run: Runner) -> None:
    (remote_run.directory / "broken").touch()
    remote_run.write(BREAKS, rollout={"infrastructure_retries": 0}, resilience=QUICK)
    done = remote_run.run(timeout=60)

    assert done.returncode == 1
    assert "the sandbox is out of disk" in done.stderr
    assert "attempts failed" in done.stderr


def test_a_drain_ends_a_run_that_is_paused(remote_run: Runner) -> None:
    remote_run.write(
        BREAKS, run={"steps": 50}, rollout={"infrastructure_retries": 0},
        resilience={"least_attempts": 4, "pause_s": 600, "longest_pause_s": 600},
    )  # fmt: skip
    with remote_run.started() as process:
        until_line(process, "step.taken")
        Path(remote_run.directory / "broken").touch()
        until_line(process, "dispatch.paused")
        process.terminate()
        code, text = ended(process, within_s=20)

    assert code == 130, text


def test_a_limit_for_an_environment_that_no_task_is_of_is_named(remote_run: Runner) -> None:
    remote_run.write(runtime={"concurrency": {"browser": 2}})
    done = remote_run.run()

    assert done.returncode == 2
    assert "no task is of an environment 'browser'; there are arithmetic" in done.stderr
